#include "dlpack_import.hpp"

#include <cstring>

#include "errors.hpp"
#include "leancore/conv.hpp"
#include "leancore/runtime.hpp"
#include "status.hpp"

namespace nb = nanobind;

namespace leancore::python {

using detail::fail;

namespace {

// Made once and kept until the process ends: looking names up again costs as much as the rest of an import.
struct Names {
  PyObject* device = PyUnicode_InternFromString("__dlpack_device__");
  PyObject* dlpack = PyUnicode_InternFromString("__dlpack__");
  PyObject* exchange = PyUnicode_InternFromString("__dlpack_c_exchange_api__");
  PyObject* dtype = PyUnicode_InternFromString("dtype");
  PyObject* view = PyUnicode_InternFromString("view");
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

// The core's own verdict of a CUDA device, asked with an empty problem.
void require_usable(dlpack::Device device, ArgumentName name) {
  const std::int64_t extents[1] = {};
  Context context;
  context.device = {DeviceType::cuda, device.device_id};
  std::size_t bytes = 0;
  const ConvDesc nothing = compact_desc(DType::f32, 1, 0, 1, 1, extents);
  if (!workspace_bytes(Operation::forward, nothing, context, bytes).ok()) {
    raise(fail(StatusCode::runtime_error, "%s: %s is on CUDA device %d, which this leancore cannot use (%s)",
               name.function, name.argument, device.device_id, cuda_status()));
  }
}

// `stream`: as the protocol writes it, or invalid for an array of the host.
nb::object capsule_of(nb::handle object, ArgumentName name, const nb::object& stream) {
  nb::object export_method = method(object, names().dlpack, name);
  nb::object keywords = nb::borrow(names().keywords), old_keywords;
  if (stream.is_valid()) {
    keywords = steal(Py_BuildValue("{s(ii)sO}", "max_version", 1, 0, "stream", stream.ptr()));
    old_keywords = steal(Py_BuildValue("{sO}", "stream", stream.ptr()));
  }
  PyObject* capsule = PyObject_Call(export_method.ptr(), names().no_arguments, keywords.ptr());
  if (capsule == nullptr && PyErr_ExceptionMatches(PyExc_TypeError)) {
    PyErr_Clear();  // a producer from before DLPack 1.0 does not know max_version
    capsule = PyObject_Call(export_method.ptr(), names().no_arguments, old_keywords.ptr());
  }
  return steal(capsule);
}

// The array's memory as uint16 if it is one of bfloat16 that can be viewed so; invalid if not.
nb::object bfloat16_as_words(nb::handle object) {
  const auto get = [](nb::handle of, PyObject* name) { return nb::steal(PyObject_GetAttr(of.ptr(), name)); };
  nb::object dtype = get(object, names().dtype);
  nb::object text = dtype.is_valid() ? nb::steal(PyObject_Str(dtype.ptr())) : nb::object();
  nb::object words;
  if (text.is_valid() && PyUnicode_CompareWithASCIIString(text.ptr(), "bfloat16") == 0) {
    nb::object view = get(object, names().view);
    if (view.is_valid()) words = nb::steal(PyObject_CallFunction(view.ptr(), "s", "uint16"));
  }
  if (!words.is_valid()) PyErr_Clear();
  return words;
}

using Exporter = int (*)(void*, dlpack::ManagedTensorVersioned**);

Exporter find_exporter(PyTypeObject* type) {
  // Only of the type itself: a subclass that inherits the attribute may mean its own __dlpack__ to be used.
  nb::object own = steal(PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), "__dict__"));
  nb::object capsule = nb::steal(PyObject_GetItem(own.ptr(), names().exchange));
  if (!capsule.is_valid()) PyErr_Clear();
  if (!capsule.is_valid() || !PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
  const auto* api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  return api->header.version.major == dlpack::major_version ? api->managed_tensor_from_object : nullptr;
}

// The export function of the DLPack C exchange API, or null: 30 times quicker than torch's __dlpack__.
Exporter exporter_of(PyTypeObject* type) {
  // The few types that a program passes, kept alive so that no other type gets the address of one. The GIL protects it.
  static struct {
    PyTypeObject* type;
    Exporter exporter;
  } known[16];
  for (auto& entry : known) {
    if (entry.type == type) return entry.exporter;
    if (entry.type == nullptr) {
      const Exporter exporter = find_exporter(type);
      Py_INCREF(reinterpret_cast<PyObject*>(type));
      entry = {type, exporter};
      return exporter;
    }
  }
  return find_exporter(type);
}

}  // namespace

void* WorkStream::handle_for(nb::handle array, ArgumentName name) {
  if (given_.is_none()) {
    nb::object type = steal(PyObject_GetAttrString(array.type().ptr(), "__qualname__"));
    raise(fail(StatusCode::unsupported,
               "%s: %s is a CUDA array of type %s, whose current stream is not known here; those of torch and CuPy are",
               name.function, name.argument, nb::cast<nb::str>(type).c_str()));
  }
  if (!known_) {
    handle_ = PyLong_AsVoidPtr(given_.ptr());
    if (PyErr_Occurred()) throw nb::python_error();
    known_ = true;
  }
  return handle_;
}

void ImportedArray::import(nb::handle object, ArgumentName name, WorkStream& stream) {
  std::int32_t device_type = 0;
  if (const Exporter exporter = exporter_of(Py_TYPE(object.ptr()))) {
    // Such an export is ready for work on the framework's current stream, which is the one that is given.
    if (exporter(object.ptr(), &versioned_) != 0) throw nb::python_error();
    const dlpack::Device device = versioned_->tensor.device;
    device_type = device.device_type;
    if (device_type == dlpack::device_cuda) {
      require_usable(device, name);
      stream.handle_for(object, name);
    }
  } else {
    const dlpack::Device device = device_of(object, name);
    device_type = device.device_type;
    nb::object number;  // of the stream, as the protocol writes it
    if (device_type == dlpack::device_cuda) {
      // Before the export: it might wait for a stream, or fail for want of the device.
      require_usable(device, name);
      const auto handle = reinterpret_cast<std::uintptr_t>(stream.handle_for(object, name));
      number = steal(PyLong_FromUnsignedLongLong(handle == 0 ? 1 : handle));  // 1: the legacy default stream
    }
    take_export_of(object, name, number);
  }

  const bool versioned = versioned_ != nullptr;
  Status status;
  if (versioned && versioned_->version.major != dlpack::major_version) {
    status = fail(StatusCode::invalid_buffer, "%s: %s speaks DLPack %u.%u, expected version %u.x", name.function,
                  name.argument, versioned_->version.major, versioned_->version.minor, dlpack::major_version);
  } else {
    dlpack::Tensor tensor = versioned ? versioned_->tensor : legacy_->tensor;
    if (words_are_bfloat16_) tensor.dtype.code = dlpack::type_bfloat;
    status = view_tensor(tensor, name, versioned && (versioned_->flags & dlpack::flag_read_only) != 0, view_);
    if (status.ok() && tensor.device.device_type != device_type) {
      status =
          fail(StatusCode::invalid_buffer, "%s: __dlpack_device__ of %s says device type %d, but its capsule says %d",
               name.function, name.argument, device_type, tensor.device.device_type);
    }
  }
  raise_if_failed(status);
}

// NumPy exports no type but its own, so that an array of ml_dtypes' bfloat16 ends in a BufferError: its memory is then
// exported as uint16.
void ImportedArray::take_export_of(nb::handle object, ArgumentName name, const nb::object& stream) {
  nb::object capsule;
  try {
    capsule = capsule_of(object, name, stream);
  } catch (nb::python_error& error) {
    nb::object words = error.matches(PyExc_BufferError) ? bfloat16_as_words(object) : nb::object();
    if (!words.is_valid()) throw;
    capsule = capsule_of(words, name, stream);
    words_are_bfloat16_ = true;
  }
  take(capsule, name);
}

void ImportedArray::take(nb::object capsule, ArgumentName name) {
  const bool is_capsule = PyCapsule_CheckExact(capsule.ptr());
  const char* capsule_name = is_capsule ? PyCapsule_GetName(capsule.ptr()) : nullptr;
  const bool versioned = capsule_name != nullptr && std::strcmp(capsule_name, "dltensor_versioned") == 0;
  if (!versioned && (capsule_name == nullptr || std::strcmp(capsule_name, "dltensor") != 0)) {
    raise(fail(StatusCode::invalid_buffer,
               "%s: __dlpack__ of %s returned %s%.60s, expected an unused capsule named dltensor or dltensor_versioned",
               name.function, name.argument, is_capsule ? "a capsule named " : "something that is not a capsule",
               is_capsule ? (capsule_name != nullptr ? capsule_name : "(null)") : ""));
  }
  void* pointer = PyCapsule_GetPointer(capsule.ptr(), capsule_name);
  // From the renaming on, calling the deleter is our duty and no longer that of the capsule.
  if (PyCapsule_SetName(capsule.ptr(), versioned ? "used_dltensor_versioned" : "used_dltensor") != 0) {
    throw nb::python_error();
  }
  if (versioned) {
    versioned_ = static_cast<dlpack::ManagedTensorVersioned*>(pointer);
  } else {
    legacy_ = static_cast<dlpack::ManagedTensor*>(pointer);
  }
}

void ImportedArray::release() noexcept {
  if (versioned_ != nullptr && versioned_->deleter != nullptr) versioned_->deleter(versioned_);
  if (legacy_ != nullptr && legacy_->deleter != nullptr) legacy_->deleter(legacy_);
  versioned_ = nullptr;
  legacy_ = nullptr;
}

}  // namespace leancore::python
