// An array of any framework, borrowed through the DLPack protocol for as long as the object lives.
#pragma once

#include <nanobind/nanobind.h>

#include <utility>

#include "dlpack_view.hpp"

namespace leancore::python {

// The CUDA stream that a call's work is put on: the current one of the arrays' framework.
class WorkStream {
 public:
  // An integer, as the framework's own handle; or None, where the arrays are the host's or the stream is not known.
  explicit WorkStream(nanobind::object given) : given_(std::move(given)) {}

  // For work on an array of a CUDA device; NotImplementedError where the stream is not known.
  void* handle_for(nanobind::handle array, ArgumentName name);
  // Null until it has been asked for: the stream of a call on the host's arrays.
  [[nodiscard]] void* handle() const noexcept { return handle_; }

 private:
  nanobind::object given_;
  bool known_ = false;
  void* handle_ = nullptr;
};

class ImportedArray {
 public:
  ImportedArray() = default;
  ~ImportedArray() { release(); }  // with the GIL held: producers may run Python code
  ImportedArray(const ImportedArray&) = delete;
  ImportedArray& operator=(const ImportedArray&) = delete;

  // To be called once. Throws a Python exception: TypeError when the object is not an array or not one of floats,
  // BufferError when it hands over something malformed, and whatever the producer itself raises, unchanged. The
  // producer sees to it that work on the stream finds the array's elements ready.
  void import(nanobind::handle object, ArgumentName name, WorkStream& stream);
  [[nodiscard]] const Array& view() const noexcept { return view_; }

 private:
  void take(nanobind::object capsule, ArgumentName name);
  void take_export_of(nanobind::handle object, ArgumentName name, const nanobind::object& stream);
  void release() noexcept;

  Array view_;
  bool words_are_bfloat16_ = false;  // exported as uint16, for want of a way to say what they are
  dlpack::ManagedTensor* legacy_ = nullptr;
  dlpack::ManagedTensorVersioned* versioned_ = nullptr;
};

}  // namespace leancore::python
