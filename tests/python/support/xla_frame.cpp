// Plays XLA: calls a handler with a call frame made of the structures in jaxlib's own header, whose runtime has a
// stream, a device and memory that the caller names. Compiled by xla_frame.py, which finds the header.
#include <xla/ffi/api/c_api.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "xla_ffi_abi.h"

namespace ours = leancore::python::xla;

// What bindings/xla_ffi_abi.h declares is what jaxlib does.
#define SAME(name, field, theirs, their_field)                                            \
  static_assert(offsetof(ours::name, field) == offsetof(theirs, their_field));            \
  static_assert(sizeof(ours::name::field) == sizeof(std::declval<theirs>().their_field)); \
  static_assert(offsetof(ours::name, struct_size) == offsetof(theirs, struct_size))
SAME(Extension, type, XLA_FFI_Extension_Base, type);
SAME(Extension, next, XLA_FFI_Extension_Base, next);
SAME(Version, extensions, XLA_FFI_Api_Version, extension_start);
SAME(Version, major, XLA_FFI_Api_Version, major_version);
SAME(Version, minor, XLA_FFI_Api_Version, minor_version);
SAME(ErrorArguments, message, XLA_FFI_Error_Create_Args, message);
SAME(ErrorArguments, code, XLA_FFI_Error_Create_Args, errc);
SAME(DestroyErrorArguments, error, XLA_FFI_Error_Destroy_Args, error);
SAME(StreamArguments, context, XLA_FFI_Stream_Get_Args, ctx);
SAME(StreamArguments, stream, XLA_FFI_Stream_Get_Args, stream);
SAME(AllocateArguments, context, XLA_FFI_DeviceMemory_Allocate_Args, ctx);
SAME(AllocateArguments, size, XLA_FFI_DeviceMemory_Allocate_Args, size);
SAME(AllocateArguments, alignment, XLA_FFI_DeviceMemory_Allocate_Args, alignment);
SAME(AllocateArguments, data, XLA_FFI_DeviceMemory_Allocate_Args, data);
SAME(FreeArguments, context, XLA_FFI_DeviceMemory_Free_Args, ctx);
SAME(FreeArguments, size, XLA_FFI_DeviceMemory_Free_Args, size);
SAME(FreeArguments, data, XLA_FFI_DeviceMemory_Free_Args, data);
SAME(DeviceArguments, context, XLA_FFI_DeviceOrdinal_Get_Args, ctx);
SAME(DeviceArguments, device, XLA_FFI_DeviceOrdinal_Get_Args, device_ordinal);
SAME(Api, version, XLA_FFI_Api, api_version);
SAME(Api, create_error, XLA_FFI_Api, XLA_FFI_Error_Create);
SAME(Api, destroy_error, XLA_FFI_Api, XLA_FFI_Error_Destroy);
SAME(Api, stream, XLA_FFI_Api, XLA_FFI_Stream_Get);
SAME(Api, allocate, XLA_FFI_Api, XLA_FFI_DeviceMemory_Allocate);
SAME(Api, free, XLA_FFI_Api, XLA_FFI_DeviceMemory_Free);
SAME(Api, device, XLA_FFI_Api, XLA_FFI_DeviceOrdinal_Get);
SAME(Buffer, dtype, XLA_FFI_Buffer, dtype);
SAME(Buffer, data, XLA_FFI_Buffer, data);
SAME(Buffer, rank, XLA_FFI_Buffer, rank);
SAME(Buffer, shape, XLA_FFI_Buffer, dims);
SAME(Buffers, size, XLA_FFI_Args, size);
SAME(Buffers, buffers, XLA_FFI_Args, args);
SAME(Buffers, size, XLA_FFI_Rets, size);
SAME(Buffers, buffers, XLA_FFI_Rets, rets);
SAME(Attributes, size, XLA_FFI_Attrs, size);
SAME(Attributes, types, XLA_FFI_Attrs, types);
SAME(Attributes, names, XLA_FFI_Attrs, names);
SAME(Attributes, values, XLA_FFI_Attrs, attrs);
SAME(CallFrame, api, XLA_FFI_CallFrame, api);
SAME(CallFrame, context, XLA_FFI_CallFrame, ctx);
SAME(CallFrame, stage, XLA_FFI_CallFrame, stage);
SAME(CallFrame, arguments, XLA_FFI_CallFrame, args);
SAME(CallFrame, results, XLA_FFI_CallFrame, rets);
SAME(CallFrame, attributes, XLA_FFI_CallFrame, attrs);
SAME(Metadata, version, XLA_FFI_Metadata, api_version);
SAME(Metadata, traits, XLA_FFI_Metadata, traits);
#undef SAME
static_assert(offsetof(ours::MetadataExtension, metadata) == offsetof(XLA_FFI_Metadata_Extension, metadata));
static_assert(offsetof(ours::Text, size) == offsetof(XLA_FFI_ByteSpan, len));
static_assert(offsetof(ours::AttributeArray, size) == offsetof(XLA_FFI_Array, size));
static_assert(offsetof(ours::AttributeArray, data) == offsetof(XLA_FFI_Array, data));
static_assert(ours::major_version == XLA_FFI_API_MAJOR);
static_assert(int{ours::type_f16} == XLA_FFI_DataType_F16 && int{ours::type_f32} == XLA_FFI_DataType_F32 &&
              int{ours::type_f64} == XLA_FFI_DataType_F64 && int{ours::type_bf16} == XLA_FFI_DataType_BF16 &&
              int{ours::type_s64} == XLA_FFI_DataType_S64);
static_assert(int{ours::stage_execute} == XLA_FFI_ExecutionStage_EXECUTE &&
              int{ours::attribute_array} == XLA_FFI_AttrType_ARRAY &&
              int{ours::extension_metadata} == XLA_FFI_Extension_Metadata);
static_assert(int{ours::error_internal} == XLA_FFI_Error_Code_INTERNAL &&
              int{ours::error_invalid_argument} == XLA_FFI_Error_Code_INVALID_ARGUMENT &&
              int{ours::error_resource_exhausted} == XLA_FFI_Error_Code_RESOURCE_EXHAUSTED);

struct XLA_FFI_Error {
  std::string message;
  XLA_FFI_Error_Code code;
};

struct XLA_FFI_ExecutionContext {
  void* stream;
  std::int32_t device;
  int (*allocate)(void**, std::size_t);  // as cudaMalloc and cudaFree
  int (*free)(void*);
  std::int64_t allocated = 0, freed = 0;
};

namespace {

int errors = 0;  // that exist

XLA_FFI_Error* fail(const std::string& message, XLA_FFI_Error_Code code) {
  ++errors;
  return new XLA_FFI_Error{message, code};
}

XLA_FFI_Error* create_error(XLA_FFI_Error_Create_Args* args) {
  return fail(args->message, args->errc);
}

void destroy_error(XLA_FFI_Error_Destroy_Args* args) {
  --errors;
  delete args->error;
}

XLA_FFI_Error* get_stream(XLA_FFI_Stream_Get_Args* args) {
  if (args->struct_size < XLA_FFI_Stream_Get_Args_STRUCT_SIZE) return fail("size", XLA_FFI_Error_Code_INTERNAL);
  args->stream = args->ctx->stream;
  return nullptr;
}

XLA_FFI_Error* get_device(XLA_FFI_DeviceOrdinal_Get_Args* args) {
  if (args->struct_size < XLA_FFI_DeviceOrdinal_Get_Args_STRUCT_SIZE) return fail("size", XLA_FFI_Error_Code_INTERNAL);
  args->device_ordinal = args->ctx->device;
  return nullptr;
}

XLA_FFI_Error* allocate(XLA_FFI_DeviceMemory_Allocate_Args* args) {
  if (args->struct_size < XLA_FFI_DeviceMemory_Allocate_Args_STRUCT_SIZE) {
    return fail("size", XLA_FFI_Error_Code_INTERNAL);
  }
  if (!std::has_single_bit(args->alignment) || args->alignment > 16) {  // as XLA has it
    return fail("alignment", XLA_FFI_Error_Code_INVALID_ARGUMENT);
  }
  if (args->ctx->allocate(&args->data, args->size) != 0) {
    return fail("no memory of XLA's", XLA_FFI_Error_Code_RESOURCE_EXHAUSTED);
  }
  args->ctx->allocated += static_cast<std::int64_t>(args->size);
  return nullptr;
}

XLA_FFI_Error* release(XLA_FFI_DeviceMemory_Free_Args* args) {
  if (args->struct_size < XLA_FFI_DeviceMemory_Free_Args_STRUCT_SIZE) return fail("size", XLA_FFI_Error_Code_INTERNAL);
  if (args->ctx->free(args->data) != 0) return fail("memory not freed", XLA_FFI_Error_Code_INTERNAL);
  args->ctx->freed += static_cast<std::int64_t>(args->size);
  return nullptr;
}

XLA_FFI_Api api_of(std::size_t struct_size) {
  XLA_FFI_Api api{};
  api.struct_size = struct_size;
  api.api_version = {XLA_FFI_Api_Version_STRUCT_SIZE, nullptr, XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR};
  api.XLA_FFI_Error_Create = &create_error;
  api.XLA_FFI_Error_Destroy = &destroy_error;
  api.XLA_FFI_Stream_Get = &get_stream;
  api.XLA_FFI_DeviceOrdinal_Get = &get_device;
  api.XLA_FFI_DeviceMemory_Allocate = &allocate;
  api.XLA_FFI_DeviceMemory_Free = &release;
  return api;
}

// The error's code, 0 for none; its text is kept until the next one.
int taken(XLA_FFI_Error* error, const char** message) {
  static thread_local std::string text;
  if (error == nullptr) return 0;
  text = error->message;
  *message = text.c_str();
  const int code = error->code;
  --errors;
  delete error;
  return code;
}

struct Given {
  std::int32_t dtype;
  std::int32_t rank;
  void* data;
  std::int64_t* shape;
};

std::vector<XLA_FFI_Buffer> buffers_of(const Given* given, std::int64_t count) {
  std::vector<XLA_FFI_Buffer> buffers;
  for (std::int64_t i = 0; i < count; ++i) {
    const Given& each = given[i];
    buffers.push_back({XLA_FFI_Buffer_STRUCT_SIZE, nullptr, static_cast<XLA_FFI_DataType>(each.dtype), each.data,
                       each.rank, each.shape});
  }
  return buffers;
}

}  // namespace

extern "C" {

// Executes; `memory` gets the bytes allocated and freed, and how many errors nobody has destroyed.
int xla_frame_execute(XLA_FFI_Handler* handler, const Given* arguments, std::int64_t argument_count,
                      const Given* results, std::int64_t result_count, std::int64_t* stride, std::int64_t* dilation,
                      std::int64_t dims, void* stream, std::int32_t device, int (*allocate_)(void**, std::size_t),
                      int (*free_)(void*), std::int64_t* memory, const char** message) {
  const XLA_FFI_Api api = api_of(XLA_FFI_Api_STRUCT_SIZE);
  XLA_FFI_ExecutionContext context{stream, device, allocate_, free_};
  std::vector<XLA_FFI_Buffer> in = buffers_of(arguments, argument_count), out = buffers_of(results, result_count);
  std::vector<XLA_FFI_ArgType> in_types(in.size(), XLA_FFI_ArgType_BUFFER);
  std::vector<XLA_FFI_RetType> out_types(out.size(), XLA_FFI_RetType_BUFFER);
  std::vector<void*> ins, outs;
  for (XLA_FFI_Buffer& each : in) ins.push_back(&each);
  for (XLA_FFI_Buffer& each : out) outs.push_back(&each);
  XLA_FFI_ByteSpan dilation_name{"dilation", 8}, stride_name{"stride", 6};
  XLA_FFI_ByteSpan* names[] = {&dilation_name, &stride_name};  // XLA sorts them
  XLA_FFI_Array dilation_array{XLA_FFI_DataType_S64, static_cast<std::size_t>(dims), dilation};
  XLA_FFI_Array stride_array{XLA_FFI_DataType_S64, static_cast<std::size_t>(dims), stride};
  void* values[] = {&dilation_array, &stride_array};
  XLA_FFI_AttrType types[] = {XLA_FFI_AttrType_ARRAY, XLA_FFI_AttrType_ARRAY};
  XLA_FFI_CallFrame frame{};
  frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  frame.api = &api;
  frame.ctx = &context;
  frame.stage = XLA_FFI_ExecutionStage_EXECUTE;
  frame.args = {XLA_FFI_Args_STRUCT_SIZE, nullptr, argument_count, in_types.data(), ins.data()};
  frame.rets = {XLA_FFI_Rets_STRUCT_SIZE, nullptr, result_count, out_types.data(), outs.data()};
  frame.attrs = {XLA_FFI_Attrs_STRUCT_SIZE, nullptr, 2, types, names, values};
  const int code = taken(handler(&frame), message);
  memory[0] = context.allocated;
  memory[1] = context.freed;
  memory[2] = errors;
  return code;
}

// Asks for the metadata, as registering does; `traits` gets them. `missing` functions are cut off the runtime's end.
int xla_frame_describe(XLA_FFI_Handler* handler, std::int64_t missing, std::uint32_t* traits, const char** message) {
  const XLA_FFI_Api api = api_of(XLA_FFI_Api_STRUCT_SIZE - static_cast<std::size_t>(missing) * sizeof(void*));
  XLA_FFI_Metadata metadata{};
  metadata.struct_size = XLA_FFI_Metadata_STRUCT_SIZE;
  metadata.traits = ~std::uint32_t{0};
  XLA_FFI_Metadata_Extension extension{};
  extension.extension_base = {sizeof extension, XLA_FFI_Extension_Metadata, nullptr};
  extension.metadata = &metadata;
  XLA_FFI_CallFrame frame{};
  frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  frame.extension_start = &extension.extension_base;
  frame.api = &api;
  frame.stage = XLA_FFI_ExecutionStage_EXECUTE;
  const int code = taken(handler(&frame), message);
  *traits = metadata.traits;
  if (code == 0 && metadata.api_version.major_version != XLA_FFI_API_MAJOR) return -1;
  return code;
}
}
