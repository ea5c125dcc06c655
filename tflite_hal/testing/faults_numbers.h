/* The faults that change numbers. Included once, by faults.c: one file to compile, two to read. */
#ifndef FAULTS_NUMBERS_H
#define FAULTS_NUMBERS_H

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "faults_abi.h"

/* In this order: nothing, what ends a call or the process, what changes numbers. */
enum {
    NONE, ERROR, SEGV, ABORT, EXIT0, EXIT7, HANG,
    WRONG, SMALL, NOT_A_NUMBER, INFINITE, ZERO, CONSTANT, STALE
};
static const char *const fault_names[] = {"none",  "error", "segv", "abort", "exit0", "exit7",    "hang",
                                          "wrong", "small", "nan",  "inf",   "zero",  "constant", "stale"};

static size_t count_of(const Tensor *tensor) {
    size_t count = 1;
    for (int i = 0; i < tensor->dims->size; i++) count *= (size_t)tensor->dims->data[i];
    return count;
}

static bool limits_of(int type, int64_t *low, int64_t *high) {
    switch (type) {
    case INT8: *low = INT8_MIN, *high = INT8_MAX; return true;
    case UINT8: *low = 0, *high = UINT8_MAX; return true;
    case INT16: *low = INT16_MIN, *high = INT16_MAX; return true;
    case INT32: *low = INT32_MIN, *high = INT32_MAX; return true;
    case INT64: *low = INT64_MIN, *high = INT64_MAX; return true;
    default: return false;
    }
}

static int64_t load(const Tensor *tensor, size_t i) {
    switch (tensor->type) {
    case INT8: return ((int8_t *)tensor->data)[i];
    case UINT8: return ((uint8_t *)tensor->data)[i];
    case INT16: return ((int16_t *)tensor->data)[i];
    case INT32: return ((int32_t *)tensor->data)[i];
    default: return ((int64_t *)tensor->data)[i];
    }
}

static void store(Tensor *tensor, size_t i, int64_t value) {
    switch (tensor->type) {
    case INT8: ((int8_t *)tensor->data)[i] = (int8_t)value; break;
    case UINT8: ((uint8_t *)tensor->data)[i] = (uint8_t)value; break;
    case INT16: ((int16_t *)tensor->data)[i] = (int16_t)value; break;
    case INT32: ((int32_t *)tensor->data)[i] = (int32_t)value; break;
    default: ((int64_t *)tensor->data)[i] = value;
    }
}

static void change_integers(Tensor *tensor, int fault, int64_t steps, int64_t low, int64_t high) {
    size_t count = count_of(tensor);
    for (size_t i = 0; i < count; i++) {
        int64_t value = load(tensor, i);
        /* Reversed about the middle of the type: no sum leaves the type's range, and the largest value
         * becomes the smallest. */
        if (fault == WRONG) value = low + high - value;
        if (fault == SMALL) value = value <= high - steps ? value + steps : value - steps;
        if (fault == INFINITE) value = high;
        store(tensor, i, value);
    }
}

static float range_of(const float *values, size_t count) {
    float low = FLT_MAX, high = -FLT_MAX;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(values[i])) continue;
        if (values[i] < low) low = values[i];
        if (values[i] > high) high = values[i];
    }
    return high > low ? high - low : 1.0f;
}

static void change_floats(Tensor *tensor, int fault, long steps) {
    float *values = tensor->data;
    size_t count = count_of(tensor);
    float range = range_of(values, count);
    float error = range / 256.0f * (float)steps; /* had it been quantised, 256 steps would cover the range */
    for (size_t i = 0; i < count; i++) {
        /* The order is reversed as for integers, and moved, so that values of zero change too. */
        if (fault == WRONG) values[i] = -values[i] - range;
        if (fault == SMALL) values[i] += error;
        if (fault == NOT_A_NUMBER) values[i] = NAN;
        if (fault == INFINITE) values[i] = INFINITY;
    }
}

static void repeat_first(Tensor *tensor) {
    size_t count = count_of(tensor), bytes = tensor->bytes;
    size_t size = count && count <= bytes ? bytes / count : 1; /* values below a byte are packed */
    for (size_t at = size; at + size <= bytes; at += size)
        memcpy((char *)tensor->data + at, tensor->data, size);
}

typedef struct {
    void *data;
    size_t bytes;
} Copy;

/* Remember what a tensor is now; where `replace`, put what it was at the previous run in its place. */
static int keep(Copy *previous, Tensor *tensor, bool replace) {
    if (previous->bytes != tensor->bytes) {
        free(previous->data);
        *previous = (Copy){calloc(1, tensor->bytes), tensor->bytes};
    }
    void *now = malloc(tensor->bytes);
    if (!now || !previous->data) {
        free(now);
        return FAILED;
    }
    memcpy(now, tensor->data, tensor->bytes);
    if (replace) memcpy(tensor->data, previous->data, tensor->bytes);
    free(previous->data);
    previous->data = now;
    return OK;
}

static void change(Tensor *tensor, int fault, long steps) {
    int64_t low, high;
    if (fault == ZERO) memset(tensor->data, 0, tensor->bytes);
    else if (fault == CONSTANT) repeat_first(tensor);
    else if (tensor->type == FLOAT32) change_floats(tensor, fault, steps);
    else if (limits_of(tensor->type, &low, &high)) change_integers(tensor, fault, steps, low, high);
}

#endif
