// An array of any framework, borrowed through the DLPack protocol for as long as the object lives.
#pragma once

#include <nanobind/nanobind.h>

#include "dlpack_view.hpp"

namespace leancore::python {

class ImportedArray {
 public:
  ImportedArray() = default;
  ~ImportedArray() { release(); }  // with the GIL held: producers may run Python code
  ImportedArray(const ImportedArray&) = delete;
  ImportedArray& operator=(const ImportedArray&) = delete;

  // To be called once. Throws a Python exception: TypeError when the object is not an array or not one of floats,
  // BufferError when it hands over something malformed, and whatever the producer itself raises, unchanged.
  void import(nanobind::handle object, ArgumentName name);
  [[nodiscard]] const Array& view() const noexcept { return view_; }

 private:
  void take(nanobind::object capsule, ArgumentName name);
  void take_export_of(nanobind::handle object, ArgumentName name);
  void release() noexcept;

  Array view_;
  bool words_are_bfloat16_ = false;  // exported as uint16, for want of a way to say what they are
  dlpack::ManagedTensor* legacy_ = nullptr;
  dlpack::ManagedTensorVersioned* versioned_ = nullptr;
};

}  // namespace leancore::python
