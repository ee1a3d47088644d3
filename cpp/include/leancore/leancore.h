/* leancore for C: the mirror of types.hpp, conv.hpp, shift.hpp and runtime.hpp, where every contract is written.
   Structures have the layout of their C++ namesakes. */
#ifndef LEANCORE_H
#define LEANCORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { LEANCORE_MAX_DIMS = 4, LEANCORE_MAX_AXES = 6 };

typedef enum { LEANCORE_F32 = 0, LEANCORE_F64 = 1, LEANCORE_F16 = 2, LEANCORE_BF16 = 3 } leancore_dtype;
typedef enum { LEANCORE_CPU = 1, LEANCORE_CUDA = 2 } leancore_device_type;
typedef enum {
  LEANCORE_FORWARD = 0,
  LEANCORE_BACKWARD_DATA = 1,
  LEANCORE_BACKWARD_WEIGHT = 2,
  LEANCORE_BACKWARD = 3
} leancore_operation;
typedef enum {
  LEANCORE_OK = 0,
  LEANCORE_INVALID_ARGUMENT,
  LEANCORE_INVALID_TYPE,
  LEANCORE_INVALID_BUFFER,
  LEANCORE_UNSUPPORTED,
  LEANCORE_OVERFLOW,
  LEANCORE_OUT_OF_MEMORY,
  LEANCORE_RUNTIME_ERROR
} leancore_status_code;

typedef struct {
  int32_t code; /* leancore_status_code */
  char message[380];
} leancore_status;

typedef struct {
  int32_t dtype; /* leancore_dtype */
  int32_t dims;
  int64_t batch, c_in, c_out;
  int64_t extents[LEANCORE_MAX_DIMS];
  int64_t stride[LEANCORE_MAX_DIMS];
  int64_t dilation[LEANCORE_MAX_DIMS];
  int64_t x_strides[LEANCORE_MAX_AXES];
  int64_t y_strides[LEANCORE_MAX_AXES];
  int64_t alpha_strides[2];
  int64_t c_strides[2];
  int64_t bias_stride;
  int64_t dx_strides[LEANCORE_MAX_AXES]; /* these three: backward alone */
  int64_t dalpha_strides[2];
  int64_t dc_strides[2];
  int32_t stencil;
} leancore_conv_desc;

typedef struct {
  int32_t dtype; /* leancore_dtype */
  int32_t dims;
  int64_t batch, channels;
  int64_t extents[LEANCORE_MAX_DIMS];
  int64_t x_strides[LEANCORE_MAX_AXES];
  int64_t y_strides[LEANCORE_MAX_AXES];
  int64_t groups;
  const int64_t* offsets;
} leancore_shift_desc;

typedef struct {
  int32_t device_type; /* leancore_device_type */
  int32_t device_index;
  void* stream;
  void* workspace;
  size_t workspace_bytes;
  int32_t threads;
  const char* implementation;
} leancore_context;

/* Compact channels-first arrays, stride and dilation 1. */
leancore_conv_desc leancore_compact_desc(int32_t dtype, int32_t dims, int64_t batch, int64_t c_in, int64_t c_out,
                                         const int64_t* extents);
/* The CPU, all threads, the best implementation, no workspace yet. */
leancore_context leancore_default_context(void);

leancore_status leancore_workspace_bytes(int32_t operation, const leancore_conv_desc* desc,
                                         const leancore_context* context, size_t* bytes);
leancore_status leancore_forward(const leancore_conv_desc* desc, const void* x, const void* alpha, const void* c,
                                 const void* bias, void* y, const leancore_context* context);
leancore_status leancore_backward_data(const leancore_conv_desc* desc, const void* dy, const void* alpha, const void* c,
                                       void* dx, const leancore_context* context);
leancore_status leancore_backward_weight(const leancore_conv_desc* desc, const void* x, const void* dy, void* dalpha,
                                         void* dc, const leancore_context* context);
/* dx, dalpha and dc in one call; any of them may be NULL when it is not wanted. */
leancore_status leancore_backward(const leancore_conv_desc* desc, const void* x, const void* dy, const void* alpha,
                                  const void* c, void* dx, void* dalpha, void* dc, const leancore_context* context);
/* The elements of x moved by the offsets of the groups of channels. */
leancore_status leancore_shift(const leancore_shift_desc* desc, const void* x, void* y,
                               const leancore_context* context);

const char* leancore_version(void);
const char* leancore_thread_backend(void);
int leancore_max_threads(void);
const char* leancore_cuda_status(void);

#ifdef __cplusplus
}
#endif

#endif
