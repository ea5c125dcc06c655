/* The layouts of the runtimes' plain C interface for delegates; no runtime ships headers of it. */
#ifndef FAULTS_ABI_H
#define FAULTS_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OK = 0, FAILED = 1 };
enum { FLOAT32 = 1, INT32 = 2, UINT8 = 3, INT64 = 4, INT16 = 7, INT8 = 9 };
enum { STRING = 5, RESOURCE = 14, VARIANT = 15 }; /* no numbers */
enum { CODE_CUSTOM = 32, CODE_DELEGATE = 51, MOST_CODES = 1024 };
/* Without this flag the runtime prepares the original operators first, which it then never runs. */
enum { ALLOW_DYNAMIC_TENSORS = 1 };

typedef struct {
    int size;
    int data[];
} IntArray;

typedef struct {
    int type;
    void *data;
    IntArray *dims;
    float scale;
    int32_t zero_point;
    int allocation_type;
    size_t bytes;
    const void *allocation;
    const char *name;
    void *delegate;
    int buffer_handle;
    bool data_is_stale, is_variable;
    int quantization_type;
    void *quantization, *sparsity;
    IntArray *dims_signature;
} Tensor;

typedef struct {
    IntArray *inputs, *outputs, *intermediates, *temporaries;
    void *user_data, *builtin_data;
    const void *custom_initial_data;
    int custom_initial_data_size;
    void *delegate;
    bool might_have_side_effect;
} Node;

typedef struct Context Context;

typedef struct {
    void *(*init)(Context *, const char *, size_t);
    void (*free)(Context *, void *);
    int (*prepare)(Context *, Node *);
    int (*invoke)(Context *, Node *);
    const char *(*profiling_string)(const Context *, const Node *);
    int32_t builtin_code;
    const char *custom_name;
    int version;
    void *external, *async_kernel; /* unused, but it is passed by value: the size must be right */
    uint64_t inplace;
} Registration;

typedef struct BaseDelegate {
    void *data;
    int (*prepare)(Context *, struct BaseDelegate *);
    void *copy_from_buffer, *copy_to_buffer, *free_buffer;
    int64_t flags;
    void *builder;
} BaseDelegate;

struct Context {
    size_t tensors_size;
    int (*get_execution_plan)(Context *, IntArray **);
    Tensor *tensors;
    void *impl;
    int (*resize_tensor)(Context *, Tensor *, IntArray *);
    void (*report_error)(Context *, const char *, ...);
    int (*add_tensors)(Context *, int, int *);
    int (*get_node)(Context *, int, Node **, Registration **);
    int (*replace_nodes)(Context *, Registration, const IntArray *, BaseDelegate *);
};

typedef struct {
    BaseDelegate *delegate;
    IntArray *nodes, *inputs, *outputs;
} PartitionParams;

_Static_assert(sizeof(void *) != 8 || sizeof(Tensor) == 112, "layout of a tensor");
_Static_assert(sizeof(void *) != 8 || sizeof(Node) == 80, "layout of a node");
_Static_assert(sizeof(void *) != 8 || sizeof(Registration) == 88, "layout of a registration");
_Static_assert(sizeof(void *) != 8 || sizeof(BaseDelegate) == 56, "layout of a delegate");

#endif
