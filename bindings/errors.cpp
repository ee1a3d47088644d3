#include "errors.hpp"

#include <nanobind/nanobind.h>

#include <cstring>

namespace leancore::python {

void raise(const Status& status) {
  PyObject* type = PyExc_RuntimeError;
  switch (status.code) {
    case StatusCode::invalid_argument:
      type = PyExc_ValueError;
      break;
    case StatusCode::invalid_type:
      type = PyExc_TypeError;
      break;
    case StatusCode::invalid_buffer:
      type = PyExc_BufferError;
      break;
    case StatusCode::unsupported:
      type = PyExc_NotImplementedError;
      break;
    case StatusCode::overflow:
      type = PyExc_OverflowError;
      break;
    case StatusCode::out_of_memory:
      type = PyExc_MemoryError;
      break;
    case StatusCode::runtime_error:
    case StatusCode::ok:
      break;
  }
  // A message cut off at the end of its buffer may end inside a character.
  PyObject* text = PyUnicode_DecodeUTF8(status.message, static_cast<Py_ssize_t>(std::strlen(status.message)), "ignore");
  if (text != nullptr) {
    PyErr_SetObject(type, text);
    Py_DECREF(text);
  }
  throw nanobind::python_error();
}

}  // namespace leancore::python
