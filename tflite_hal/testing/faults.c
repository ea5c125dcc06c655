/* A TensorFlow Lite delegate that misbehaves on request, to test what stands around delegates.
 *
 * Every operator it takes becomes a partition of its own and is computed by the runtime's own kernel for
 * it, so that its numbers are right wherever no fault is asked for. The options are described in
 * faults.py.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "faults_abi.h"
#include "faults_numbers.h"

enum { CREATE, DELEGATE_PREPARE, KERNEL_PREPARE, RUN, DESTROY };
static const char *const stage_names[] = {"create", "delegate_prepare", "kernel_prepare", "run", "destroy"};

typedef struct {
    BaseDelegate base; /* first: the runtime's pointer to it is a pointer to all of it */
    int fault, stage;
    long at, steps;
    bool takes[MOST_CODES];
    Context *graph; /* the model's main graph, which is prepared first: its runs are counted */
    long runs;
} Delegate;

typedef struct {
    Delegate *owner;
    Node node;              /* copies: the runtime moves its own when nodes are added */
    Registration operator_;
    bool first, last;       /* in the order of execution, of the main graph */
    int outputs;            /* kept apart: the original node is freed before its kernel */
    Copy *previous;         /* what each output was at the previous run; kept for STALE only */
} Kernel;

/* ---- faults that end a call or the process ---- */

static void end_process(int fault) {
    int *volatile nowhere = NULL; /* volatile: the compiler must not see that it is null */
    switch (fault) {
    case SEGV: *(volatile int *)nowhere = 0; break;
    case ABORT: abort();
    case EXIT0: _exit(0);
    case EXIT7: _exit(7);
    case HANG:
        for (;;) pause();
    }
}

/* Fill `text` with what is about to happen and do it, unless it is an error, which is the caller's to
 * return: FAILED. OK where nothing is to happen here. */
static int misbehave(const Delegate *self, int stage, char *text, size_t size) {
    bool ends = self->fault > NONE && self->fault <= HANG;
    if (!ends || self->stage != stage || (stage == RUN && self->runs < self->at)) return OK;
    int length = snprintf(text, size, "tflite-hal fault injection: %s at %s", fault_names[self->fault],
                          stage_names[stage]);
    if (stage == RUN) snprintf(text + length, size - (size_t)length, " %ld", self->runs);
    if (self->fault != ERROR || stage == DESTROY) fprintf(stderr, "%s\n", text);
    end_process(self->fault);
    return FAILED;
}

static int misbehave_in(Context *context, const Delegate *self, int stage) {
    char text[100];
    int status = misbehave(self, stage, text, sizeof text);
    if (status != OK) context->report_error(context, "%s. ", text);
    return status;
}

static bool has_numbers(const Tensor *tensor) {
    int type = tensor->type;
    return type != STRING && type != RESOURCE && type != VARIANT && tensor->data && tensor->bytes;
}

static int change_outputs(Context *context, Kernel *kernel) {
    const Delegate *owner = kernel->owner;
    bool begun = owner->runs >= owner->at;
    for (int i = 0; owner->fault > HANG && i < kernel->outputs; i++) {
        int index = kernel->node.outputs->data[i];
        Tensor *tensor = index < 0 ? NULL : &context->tensors[index];
        if (!tensor || !has_numbers(tensor)) continue;
        if (owner->fault == STALE) {
            if (keep(&kernel->previous[i], tensor, begun) != OK) return FAILED;
        } else if (begun) {
            change(tensor, owner->fault, owner->steps);
        }
    }
    return OK;
}

/* ---- one operator: a copied registration on a copied node ---- */

static void kernel_free(Context *context, void *data) {
    Kernel *kernel = data;
    (void)context;
    if (!kernel) return;
    for (int i = 0; kernel->previous && i < kernel->outputs; i++) free(kernel->previous[i].data);
    free(kernel->previous);
    free(kernel);
}

static void *kernel_init(Context *context, const char *buffer, size_t length) {
    const PartitionParams *partition = (const PartitionParams *)(const void *)buffer;
    Kernel *kernel = calloc(1, sizeof *kernel);
    Node *node;
    Registration *operator_;
    (void)length;
    if (!kernel) return NULL;
    if (context->get_node(context, partition->nodes->data[0], &node, &operator_) != OK) {
        free(kernel);
        return NULL;
    }
    kernel->owner = (Delegate *)partition->delegate;
    kernel->node = *node;
    kernel->operator_ = *operator_;
    kernel->outputs = node->outputs->size;
    kernel->previous = calloc((size_t)node->outputs->size, sizeof *kernel->previous);
    return kernel;
}

/* The operator works with the temporaries of the partition's node: those the runtime gives memory, the
 * original node's it does not. */
static int forward(Context *context, Node *node, int (*call)(Context *, Node *)) {
    Kernel *kernel = node->user_data;
    kernel->node.temporaries = node->temporaries;
    int status = call(context, &kernel->node);
    node->temporaries = kernel->node.temporaries;
    return status;
}

static int kernel_prepare(Context *context, Node *node) {
    Kernel *kernel = node->user_data;
    if (!kernel || !kernel->previous) return FAILED; /* out of memory */
    if (misbehave_in(context, kernel->owner, KERNEL_PREPARE) != OK) return FAILED;
    if (!kernel->operator_.prepare) return OK;
    return forward(context, node, kernel->operator_.prepare);
}

static int kernel_invoke(Context *context, Node *node) {
    Kernel *kernel = node->user_data;
    if (kernel->first) {
        kernel->owner->runs++;
        if (misbehave_in(context, kernel->owner, RUN) != OK) return FAILED;
    }
    int status = forward(context, node, kernel->operator_.invoke);
    return status == OK && kernel->last ? change_outputs(context, kernel) : status;
}

/* ---- the delegate ---- */

static bool wanted(Context *context, const Delegate *self, int index) {
    Node *node;
    Registration *found;
    if (context->get_node(context, index, &node, &found) != OK) return false;
    int code = found->builtin_code;
    return code >= 0 && code < MOST_CODES && self->takes[code] && found->invoke && node->outputs->size > 0;
}

static int take(Context *context, Delegate *self, int index) {
    Registration kernel = {
        .init = kernel_init,
        .free = kernel_free,
        .prepare = kernel_prepare,
        .invoke = kernel_invoke,
        .builtin_code = CODE_DELEGATE,
        .custom_name = "FaultDelegate",
        .version = 1,
    };
    IntArray *one = malloc(sizeof *one + sizeof(int));
    if (!one) return FAILED;
    one->size = 1;
    one->data[0] = index;
    int status = context->replace_nodes(context, kernel, one, &self->base);
    free(one);
    return status;
}

/* Taking a node changes the plan: what is first and last is known after all were taken. */
static int mark_ends(Context *context, Delegate *self) {
    Kernel *first = NULL, *last = NULL;
    IntArray *plan;
    if (context->get_execution_plan(context, &plan) != OK) return FAILED;
    for (int i = 0; i < plan->size; i++) {
        Node *node;
        Registration *found;
        if (context->get_node(context, plan->data[i], &node, &found) != OK) return FAILED;
        if (node->delegate != self || !node->user_data) continue;
        last = node->user_data;
        if (!first) first = last;
    }
    if (first) first->first = last->last = true;
    return OK;
}

static int delegate_prepare(Context *context, BaseDelegate *base) {
    Delegate *self = (Delegate *)base;
    IntArray *plan;
    if (misbehave_in(context, self, DELEGATE_PREPARE) != OK) return FAILED;
    if (context->get_execution_plan(context, &plan) != OK) return FAILED;
    if (!self->graph) self->graph = context;
    int count = plan->size, status = OK;
    int *nodes = malloc(((size_t)count + 1) * sizeof *nodes); /* the runtime rewrites its plan */
    if (!nodes) return FAILED;
    memcpy(nodes, plan->data, (size_t)count * sizeof *nodes);
    for (int i = 0; i < count && status == OK; i++)
        if (wanted(context, self, nodes[i])) status = take(context, self, nodes[i]);
    free(nodes);
    return status == OK && context == self->graph ? mark_ends(context, self) : status;
}

/* ---- options ---- */

static bool choose(const char *value, const char *const *names, size_t count, int *chosen) {
    for (size_t i = 0; i < count; i++)
        if (!strcmp(value, names[i])) return *chosen = (int)i, true;
    return false;
}

static bool read_number(const char *value, long most, long *number) {
    char *end;
    *number = strtol(value, &end, 10);
    return end != value && !*end && *number >= 1 && *number <= most;
}

static bool read_operators(const char *value, bool *takes) {
    bool all = !strcmp(value, "all");
    for (int code = 0; code < MOST_CODES; code++)
        takes[code] = all && code != CODE_CUSTOM && code != CODE_DELEGATE;
    while (!all) {
        char *end;
        long code = strtol(value, &end, 10);
        if (end == value || code < 0 || code >= MOST_CODES) return false;
        takes[code] = true;
        if (!*end) return true;
        if (*end != ',') return false;
        value = end + 1;
    }
    return true;
}

static bool set_option(Delegate *self, const char *key, const char *value) {
    if (!strcmp(key, "operators")) return read_operators(value, self->takes);
    if (!strcmp(key, "fault"))
        return choose(value, fault_names, sizeof fault_names / sizeof *fault_names, &self->fault);
    if (!strcmp(key, "stage"))
        return choose(value, stage_names, sizeof stage_names / sizeof *stage_names, &self->stage);
    if (!strcmp(key, "at")) return read_number(value, INT32_MAX, &self->at);
    if (!strcmp(key, "steps")) return read_number(value, INT8_MAX, &self->steps);
    return false;
}

/* False with a message where the options can't be followed. */
static bool configure(Delegate *self, char **keys, char **values, size_t count, char *text, size_t size) {
    read_operators("all", self->takes);
    for (size_t i = 0; i < count; i++) {
        if (set_option(self, keys[i], values[i])) continue;
        snprintf(text, size, "fault: option %.60s=%.60s is not understood", keys[i], values[i]);
        return false;
    }
    if (self->fault > HANG && self->stage != RUN) {
        snprintf(text, size, "fault: %s changes numbers, which is at stage run only",
                 fault_names[self->fault]);
        return false;
    }
    return misbehave(self, CREATE, text, size) == OK;
}

void *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
    char text[200];
    Delegate *self = calloc(1, sizeof *self);
    if (!self) return NULL;
    self->base.prepare = delegate_prepare;
    self->base.flags = ALLOW_DYNAMIC_TENSORS;
    self->fault = NONE;
    self->stage = RUN;
    self->at = 1;
    self->steps = 3;
    if (configure(self, keys, values, count, text, sizeof text)) return self;
    if (report) report(text);
    free(self);
    return NULL;
}

/* The runtimes destroy what was never created too. */
void tflite_plugin_destroy_delegate(void *delegate) {
    char text[100];
    if (delegate) misbehave(delegate, DESTROY, text, sizeof text);
    free(delegate);
}
