// The structures of XLA's foreign function interface, version 0.x, through which JAX calls compiled code
// (https://openxla.org/xla/custom_call), as far as they are used here. Declared here, so that building needs no jaxlib,
// and one build serves every jaxlib: minor versions append to these structures, and each says its size.
// Enumerations are plain integers: what the runtime hands over may be newer than this page.
#pragma once

#include <cstddef>
#include <cstdint>

namespace leancore::python::xla {

inline constexpr int major_version = 0;

enum TypeCode : std::int32_t { type_s64 = 5, type_f16 = 10, type_f32 = 11, type_f64 = 12, type_bf16 = 16 };
enum ExtensionCode : std::int32_t { extension_metadata = 1 };
enum StageCode : std::int32_t { stage_execute = 3 };
enum AttributeCode : std::int32_t { attribute_array = 1 };
enum ErrorCode : std::int32_t { error_invalid_argument = 3, error_resource_exhausted = 8, error_internal = 13 };

struct Error;             // of the runtime
struct ExecutionContext;  // likewise

struct Extension {
  std::size_t struct_size;
  std::int32_t type;
  Extension* next;
};

struct Version {
  std::size_t struct_size;
  Extension* extensions;
  int major, minor;
};

struct ErrorArguments {
  std::size_t struct_size;
  Extension* extensions;
  const char* message;
  std::int32_t code;
};

struct DestroyErrorArguments {
  std::size_t struct_size;
  Extension* extensions;
  Error* error;
};

struct StreamArguments {
  std::size_t struct_size;
  Extension* extensions;
  ExecutionContext* context;
  void* stream;  // answered: on CUDA a cudaStream_t
};

struct AllocateArguments {
  std::size_t struct_size;
  Extension* extensions;
  ExecutionContext* context;
  std::size_t size;
  std::size_t alignment;
  void* data;  // answered
};

struct FreeArguments {
  std::size_t struct_size;
  Extension* extensions;
  ExecutionContext* context;
  std::size_t size;
  void* data;
};

struct DeviceArguments {
  std::size_t struct_size;
  Extension* extensions;
  ExecutionContext* context;
  std::int32_t device;  // answered
};

// Functions of the runtime; those with an answer return an error, or null.
struct Api {
  std::size_t struct_size;
  Extension* extensions;
  Version version;
  const void* internal;
  Error* (*create_error)(ErrorArguments*);
  void* error_message;
  void (*destroy_error)(DestroyErrorArguments*);
  void* register_handler;
  Error* (*stream)(StreamArguments*);
  void* not_used_here[4];  // of types, contexts and states
  Error* (*allocate)(AllocateArguments*);
  Error* (*free)(FreeArguments*);
  void* nor_here[6];  // of threads, futures and runs
  Error* (*device)(DeviceArguments*);
};

struct Buffer {
  std::size_t struct_size;
  Extension* extensions;
  std::int32_t dtype;
  void* data;
  std::int64_t rank;
  std::int64_t* shape;  // the memory is compact, in the order of the axes unless another one was asked for
};

// Arguments and results.
struct Buffers {
  std::size_t struct_size;
  Extension* extensions;
  std::int64_t size;
  std::int32_t* types;
  Buffer** buffers;
};

struct Text {
  const char* data;
  std::size_t size;
};

struct AttributeArray {
  std::int32_t dtype;
  std::size_t size;
  void* data;
};

struct Attributes {
  std::size_t struct_size;
  Extension* extensions;
  std::int64_t size;
  std::int32_t* types;
  Text** names;
  void** values;
};

struct CallFrame {
  std::size_t struct_size;
  Extension* extensions;
  const Api* api;
  ExecutionContext* context;
  std::int32_t stage;
  Buffers arguments;
  Buffers results;
  Attributes attributes;
};

// With this extension a call asks what the function is; nothing else is done then.
struct Metadata {
  std::size_t struct_size;
  Version version;
  std::uint32_t traits;
};

struct MetadataExtension {
  Extension base;
  Metadata* metadata;
};

}  // namespace leancore::python::xla
