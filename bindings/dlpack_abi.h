// The structures of the DLPack protocol, version 1.x, as https://dmlc.github.io/dlpack/latest/c_api.html lays them out.
// Declared here, so that building needs no package that ships them. Enumerations are plain integers: what a producer
// hands over is not to be trusted to be one of the known values.
#pragma once

#include <cstdint>

namespace leancore::python::dlpack {

inline constexpr std::uint32_t major_version = 1;
inline constexpr std::uint64_t flag_read_only = 1;

enum DeviceCode : std::int32_t { device_cpu = 1, device_cuda = 2, device_cuda_host = 3 };
enum TypeCode : std::uint8_t { type_int, type_uint, type_float, type_opaque, type_bfloat, type_complex, type_bool };

struct Device {
  std::int32_t device_type;
  std::int32_t device_id;
};

struct DataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null means compact
  std::uint64_t byte_offset;
};

// In capsules named "dltensor".
struct ManagedTensor {
  Tensor tensor;
  void* context;
  void (*deleter)(ManagedTensor*);
};

struct Version {
  std::uint32_t major;
  std::uint32_t minor;
};

// In capsules named "dltensor_versioned". Of another major version only `version` and `deleter` may be used.
struct ManagedTensorVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedTensorVersioned*);
  std::uint64_t flags;
  Tensor tensor;
};

// DLPack 1.3: a table of functions that a type offers in a capsule, its attribute __dlpack_c_exchange_api__. Only the
// beginning is declared, as far as it is used here.
struct ExchangeHeader {
  Version version;
  ExchangeHeader* previous;
};

struct ExchangeApi {
  ExchangeHeader header;
  void* allocator;
  int (*managed_tensor_from_object)(void* object, ManagedTensorVersioned** out);  // 0, or -1 and a Python exception
};

}  // namespace leancore::python::dlpack
