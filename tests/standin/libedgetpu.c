/* Stands for libedgetpu where there is no Edge TPU: all it does is in edgetpu_standin.py, which the process
 * that loads it imports. Declared by hand, so that no headers are needed. TREE is the machine's file tree. */
#include <stddef.h>

struct edgetpu_device;

extern int PyGILState_Ensure(void);
extern void PyGILState_Release(int);
extern void *PyImport_ImportModule(const char *);
extern void *PyObject_CallMethod(void *, const char *, const char *, ...);
extern void *PyDict_New(void);
extern int PyDict_SetItemString(void *, const char *, void *);
extern void *PyUnicode_FromString(const char *);
extern void *PyLong_AsVoidPtr(void *);
extern void Py_DecRef(void *);
extern void PyErr_Print(void);

/* Return the address that a result is, and forget the result; NULL where there is none. */
static void *address(void *result) {
    if (!result) {
        PyErr_Print();
        return NULL;
    }
    void *found = PyLong_AsVoidPtr(result);
    Py_DecRef(result);
    return found;
}

void *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
    int state = PyGILState_Ensure();
    void *module = PyImport_ImportModule("edgetpu_standin"), *options = PyDict_New(), *made = NULL;
    (void)report; /* the real one never calls it */
    for (size_t i = 0; i < count; i++) {
        void *value = PyUnicode_FromString(values[i]);
        PyDict_SetItemString(options, keys[i], value);
        Py_DecRef(value);
    }
    if (module) made = address(PyObject_CallMethod(module, "create", "sO", TREE, options));
    else PyErr_Print();
    Py_DecRef(options);
    PyGILState_Release(state);
    return made;
}

void tflite_plugin_destroy_delegate(void *delegate) {
    int state = PyGILState_Ensure();
    void *module = PyImport_ImportModule("edgetpu_standin");
    if (module) address(PyObject_CallMethod(module, "destroy", "n", (ptrdiff_t)delegate));
    PyGILState_Release(state);
}

struct edgetpu_device *edgetpu_list_devices(size_t *count) {
    int state = PyGILState_Ensure();
    void *module = PyImport_ImportModule("edgetpu_standin"), *listed = NULL;
    *count = 0;
    if (module) listed = address(PyObject_CallMethod(module, "listing", "sn", TREE, (ptrdiff_t)count));
    PyGILState_Release(state);
    return listed;
}

void edgetpu_free_devices(struct edgetpu_device *devices) { (void)devices; }
void edgetpu_verbosity(int level) { (void)level; }
