#include "dlpack_import.hpp"

#include <cstring>

#include "errors.hpp"
#include "fail.hpp"
#include "leancore/conv.hpp"
#include "leancore/runtime.hpp"

namespace nb = nanobind;

namespace leancore::python {
namespace {

// Made once and kept until the process ends: looking names up again costs as much as the rest of an import.
struct Names {
  PyObject* device = PyUnicode_InternFromString("__dlpack_device__");
  PyObject* dlpack = PyUnicode_InternFromString("__dlpack__");
  PyObject* no_arguments = PyTuple_New(0);
  PyObject* keywords = Py_BuildValue("{s(ii)}", "max_version", 1, 0);
};

const Names& names() {
  static const Names* instance = new Names;
  return *instance;
}

nb::object steal(PyObject* object) {
  if (object == nullptr) throw nb::python_error();
  return nb::steal(object);
}

Status not_an_array(nb::handle object, ArgumentName name) {
  nb::object type = steal(PyObject_GetAttrString(object.type().ptr(), "__qualname__"));
  return fail(StatusCode::invalid_type,
              "%s: %s is %s%s, expected an array (one with __dlpack__: NumPy, torch, JAX, ...)", name.function,
              name.argument, object.is_none() ? "" : "of type ",
              object.is_none() ? "None" : nb::cast<nb::str>(type).c_str());
}

nb::object method(nb::handle object, PyObject* attribute, ArgumentName name) {
  PyObject* found = PyObject_GetAttr(object.ptr(), attribute);
  if (found == nullptr) {
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) throw nb::python_error();
    PyErr_Clear();
    raise(not_an_array(object, name));
  }
  nb::object result = nb::steal(found);
  if (!PyCallable_Check(found)) raise(not_an_array(object, name));
  return result;
}

dlpack::Device device_of(nb::handle object, ArgumentName name) {
  nb::object answer = steal(PyObject_CallNoArgs(method(object, names().device, name).ptr()));
  if (PyTuple_Check(answer.ptr()) && PyTuple_Size(answer.ptr()) == 2) {
    const long type = PyLong_AsLong(PyTuple_GetItem(answer.ptr(), 0));
    const long index = type == -1 && PyErr_Occurred() ? -1 : PyLong_AsLong(PyTuple_GetItem(answer.ptr(), 1));
    if (!PyErr_Occurred() && static_cast<std::int32_t>(type) == type && static_cast<std::int32_t>(index) == index) {
      return {static_cast<std::int32_t>(type), static_cast<std::int32_t>(index)};
    }
    PyErr_Clear();
  }
  raise(fail(StatusCode::invalid_buffer, "%s: __dlpack_device__ of %s did not return two integers", name.function,
             name.argument));
}

// The core's own verdict, asked with an empty problem.
bool cuda_usable(std::int32_t index) {
  const std::int64_t extents[1] = {};
  Context context;
  context.device = {DeviceType::cuda, index};
  std::size_t bytes = 0;
  return workspace_bytes(Operation::forward, compact_desc(DType::f32, 1, 0, 1, 1, extents), context, bytes).ok();
}

nb::object capsule_of(nb::handle object, ArgumentName name) {
  nb::object export_method = method(object, names().dlpack, name);
  PyObject* capsule = PyObject_Call(export_method.ptr(), names().no_arguments, names().keywords);
  if (capsule == nullptr && PyErr_ExceptionMatches(PyExc_TypeError)) {
    PyErr_Clear();  // a producer from before DLPack 1.0 does not know the keyword
    capsule = PyObject_CallNoArgs(export_method.ptr());
  }
  return steal(capsule);
}

}  // namespace

void ImportedArray::import(nb::handle object, ArgumentName name) {
  const dlpack::Device device = device_of(object, name);
  // Before the export: it might wait for a stream, or fail for want of the device.
  if (device.device_type == dlpack::device_cuda && !cuda_usable(device.device_id)) {
    raise(fail(StatusCode::runtime_error, "%s: %s is on CUDA device %d, which this leancore cannot use (%s)",
               name.function, name.argument, device.device_id, cuda_status()));
  }

  nb::object capsule = capsule_of(object, name);
  const char* capsule_name = PyCapsule_CheckExact(capsule.ptr()) ? PyCapsule_GetName(capsule.ptr()) : nullptr;
  PyErr_Clear();
  const bool versioned = capsule_name != nullptr && std::strcmp(capsule_name, "dltensor_versioned") == 0;
  if (!versioned && (capsule_name == nullptr || std::strcmp(capsule_name, "dltensor") != 0)) {
    raise(fail(StatusCode::invalid_buffer,
               "%s: __dlpack__ of %s returned %s%.60s, expected an unused capsule named dltensor or dltensor_versioned",
               name.function, name.argument,
               PyCapsule_CheckExact(capsule.ptr()) ? "a capsule named " : "something that is not a capsule",
               PyCapsule_CheckExact(capsule.ptr()) ? (capsule_name != nullptr ? capsule_name : "(null)") : ""));
  }
  void* pointer = PyCapsule_GetPointer(capsule.ptr(), capsule_name);
  // From the renaming on, calling the deleter is our duty and no longer that of the capsule.
  if (PyCapsule_SetName(capsule.ptr(), versioned ? "used_dltensor_versioned" : "used_dltensor") != 0) {
    throw nb::python_error();
  }
  const dlpack::Tensor* tensor = nullptr;
  bool read_only = false;
  if (versioned) {
    versioned_ = static_cast<dlpack::ManagedTensorVersioned*>(pointer);
    if (versioned_->version.major != dlpack::major_version) {
      const auto [major, minor] = versioned_->version;
      release();
      raise(fail(StatusCode::invalid_buffer, "%s: %s speaks DLPack %u.%u, expected version %u.x", name.function,
                 name.argument, major, minor, dlpack::major_version));
    }
    tensor = &versioned_->tensor;
    read_only = (versioned_->flags & dlpack::flag_read_only) != 0;
  } else {
    legacy_ = static_cast<dlpack::ManagedTensor*>(pointer);
    tensor = &legacy_->tensor;
  }

  Status status = view_tensor(*tensor, name, read_only, view_);
  if (status.ok() && tensor->device.device_type != device.device_type) {
    status =
        fail(StatusCode::invalid_buffer, "%s: __dlpack_device__ of %s says device type %d, but its capsule says %d",
             name.function, name.argument, device.device_type, tensor->device.device_type);
  }
  if (!status.ok()) {
    release();  // a constructor that throws has no destructor
    raise(status);
  }
}

void ImportedArray::release() noexcept {
  if (versioned_ != nullptr && versioned_->deleter != nullptr) versioned_->deleter(versioned_);
  if (legacy_ != nullptr && legacy_->deleter != nullptr) legacy_->deleter(legacy_);
  versioned_ = nullptr;
  legacy_ = nullptr;
}

}  // namespace leancore::python
