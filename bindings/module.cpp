// leancore._core: arrays in through DLPack, every check in C++, outputs allocated by the caller's framework once all
// inputs are known to be good, the GIL released around the work.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <string_view>
#include <vector>

#include "dlpack_import.hpp"
#include "errors.hpp"
#include "leancore/leancore.hpp"
#include "limits.hpp"
#include "status.hpp"
#include "workspace.hpp"
#include "xla_ffi.hpp"

namespace nb = nanobind;

namespace leancore::python {

using detail::fail;

namespace {

// What a conversion to int or tuple returned; its TypeError, and no other exception, is replaced by one that names the
// argument.
nb::object converted(PyObject* result, ArgumentName name) {
  if (result == nullptr) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw nb::python_error();
    PyErr_Clear();
    raise(fail(StatusCode::invalid_type, "%s: %s is neither an int nor a sequence of ints", name.function,
               name.argument));
  }
  return nb::steal(result);
}

long long integer(nb::handle value, ArgumentName name) {
  nb::object index = converted(PyNumber_Index(value.ptr()), name);
  const long long result = PyLong_AsLongLong(index.ptr());
  if (result == -1 && PyErr_Occurred()) throw nb::python_error();
  return result;
}

// Fills `values` from a sequence of at most `capacity` integers; returns its length.
int integers(nb::handle sequence, ArgumentName name, int capacity, std::int64_t* values) {
  nb::object fast = converted(PySequence_Tuple(sequence.ptr()), name);
  const Py_ssize_t length = PyTuple_Size(fast.ptr());
  if (length > capacity) {
    raise(fail(StatusCode::invalid_argument, "%s: %s has %lld entries, expected at most %d", name.function,
               name.argument, static_cast<long long>(length), capacity));
  }
  for (Py_ssize_t i = 0; i < length; ++i) values[i] = integer(PyTuple_GetItem(fast.ptr(), i), name);
  return static_cast<int>(length);
}

// An integer for all axes, or one for each.
void spatial(nb::handle value, ArgumentName name, const Array& array, std::int64_t (&values)[max_dims]) {
  if (PyLong_Check(value.ptr()) || !PySequence_Check(value.ptr())) {
    const std::int64_t all = integer(value, name);
    for (std::int64_t& each : values) each = all;
    return;
  }
  const int length = integers(value, name, max_dims, values);
  const int dims = array.ndim - 2;
  if (dims >= 1 && dims <= max_dims && length != dims) {  // another number of axes is described in its own message
    raise(fail(StatusCode::invalid_argument,
               "%s: %s has %d entries, expected one for each of %d spatial axes, or an int", name.function,
               name.argument, length, dims));
  }
}

Geometry geometry_of(const char* function, const Array& array, nb::handle stride, nb::handle dilation) {
  Geometry geometry;
  spatial(stride, {function, "stride"}, array, geometry.stride);
  spatial(dilation, {function, "dilation"}, array, geometry.dilation);
  return geometry;
}

nb::object shape_tuple(int axes, const std::int64_t* shape) {
  nb::object tuple = nb::steal(PyTuple_New(axes));
  if (!tuple.is_valid()) throw nb::python_error();
  for (int axis = 0; axis < axes; ++axis) {
    PyObject* extent = PyLong_FromLongLong(shape[axis]);
    if (extent == nullptr || PyTuple_SetItem(tuple.ptr(), axis, extent) != 0) throw nb::python_error();
  }
  return tuple;
}

// The given output, or a new one of the shape that the descriptor asks for.
nb::object output(nb::handle out, nb::handle allocate, Output which, const ConvDesc& desc) {
  if (!out.is_none()) return nb::borrow(out);
  std::int64_t shape[max_axes];
  const int axes = output_shape(which, desc, shape);
  return allocate(shape_tuple(axes, shape));
}

// Scratch memory on the device of the arrays, from their framework: it knows when the memory may be used again.
class DeviceWorkspace {
 public:
  DeviceWorkspace(nb::handle allocate, ArgumentName name, std::size_t bytes, DType dtype, WorkStream& stream) {
    const auto size = static_cast<std::size_t>(info(dtype).size);
    array_ = allocate(nb::make_tuple((bytes + size - 1) / size));
    view_.import(array_, name, stream);
    const Array& view = view_.view();
    if (view.ndim != 1 || view.dtype != dtype || view.strides[0] != 1 ||
        static_cast<std::size_t>(view.shape[0]) * size < bytes) {
      raise(fail(StatusCode::invalid_buffer, "%s: allocate did not return a compact array for the workspace",
                 name.function));
    }
  }
  [[nodiscard]] void* data() const noexcept { return view_.view().data; }

 private:
  nb::object array_;
  ImportedArray view_;
};

// Runs `call(context)` with a workspace and without the GIL; on a device it only starts the work.
template <typename Call>
void run(Operation operation, const char* function, const ConvDesc& desc, Device device, WorkStream& stream,
         nb::handle allocate, nb::handle implementation, Call&& call) {
  Context context;
  context.device = device;
  context.stream = stream.handle();
  if (!implementation.is_none()) {
    if (!PyUnicode_Check(implementation.ptr())) {
      raise(fail(StatusCode::invalid_type, "%s: implementation is not a str", function));
    }
    context.implementation = PyUnicode_AsUTF8AndSize(implementation.ptr(), nullptr);
    if (context.implementation == nullptr) throw nb::python_error();
  }
  raise_if_failed(workspace_bytes(operation, desc, context, context.workspace_bytes));
  Status status;
  if (device.type == DeviceType::cuda) {
    std::optional<DeviceWorkspace> workspace;
    if (context.workspace_bytes != 0) {
      workspace.emplace(allocate, ArgumentName{function, "the workspace"}, context.workspace_bytes, desc.dtype, stream);
      context.workspace = workspace->data();
    }
    nb::gil_scoped_release release;
    status = call(context);
  } else {
    nb::gil_scoped_release release;
    thread_local Workspace workspace;
    if (context.workspace_bytes != 0) context.workspace = workspace.reserve(context.workspace_bytes);
    if (context.workspace_bytes != 0 && context.workspace == nullptr) {
      status = fail(StatusCode::out_of_memory, "%s: no memory for a workspace of %zu bytes", function,
                    context.workspace_bytes);
    } else {
      status = call(context);
    }
    workspace.trim();
  }
  raise_if_failed(status);
}

nb::object py_forward(nb::handle x, nb::handle alpha, nb::handle c, nb::handle bias, nb::handle out,
                      nb::handle allocate, nb::handle stride, nb::handle dilation, nb::handle implementation,
                      nb::handle given_stream) {
  static constexpr const char* function = "forward";
  WorkStream work(nb::borrow(given_stream));
  ImportedArray x_in, alpha_in, c_in, bias_in, y_out;
  x_in.import(x, {function, "x"}, work);
  alpha_in.import(alpha, {function, "alpha"}, work);
  if (!c.is_none()) c_in.import(c, {function, "c"}, work);
  if (!bias.is_none()) bias_in.import(bias, {function, "bias"}, work);

  ConvDesc desc;
  raise_if_failed(describe_forward(x_in.view(), alpha_in.view(), c.is_none() ? nullptr : &c_in.view(),
                                   bias.is_none() ? nullptr : &bias_in.view(),
                                   geometry_of(function, x_in.view(), stride, dilation), desc));
  nb::object y = output(out, allocate, Output::y, desc);
  y_out.import(y, {function, "out (y)"}, work);
  raise_if_failed(bind_output(Operation::forward, Output::y, y_out.view(), desc));
  run(Operation::forward, function, desc, x_in.view().device, work, allocate, implementation,
      [&](const Context& context) {
        return forward(desc, x_in.view().data, alpha_in.view().data, c_in.view().data, bias_in.view().data,
                       y_out.view().data, context);
      });
  return y;
}

nb::object py_backward_data(nb::handle dy, nb::handle alpha, nb::handle c, nb::handle x_shape, nb::handle out,
                            nb::handle allocate, nb::handle stride, nb::handle dilation, nb::handle implementation,
                            nb::handle given_stream) {
  static constexpr const char* function = "backward_data";
  WorkStream work(nb::borrow(given_stream));
  ImportedArray dy_in, alpha_in, c_in, dx_out;
  dy_in.import(dy, {function, "dy"}, work);
  alpha_in.import(alpha, {function, "alpha"}, work);
  if (!c.is_none()) c_in.import(c, {function, "c"}, work);

  // The shape of out says what x_shape would; without both, the extents are those of dy times the stride.
  std::int64_t shape[max_axes] = {};
  int axes = 0;
  if (!x_shape.is_none()) {
    axes = integers(x_shape, {function, "x_shape"}, max_axes, shape);
    if (axes != dy_in.view().ndim) {
      raise(fail(StatusCode::invalid_argument, "%s: x_shape has %d entries, expected %d as dy has axes", function, axes,
                 dy_in.view().ndim));
    }
  } else if (!out.is_none()) {
    dx_out.import(out, {function, "out (dx)"}, work);
    if (dx_out.view().ndim == dy_in.view().ndim) axes = dy_in.view().ndim;
    for (int axis = 0; axis < axes; ++axis) shape[axis] = dx_out.view().shape[axis];
  }
  ConvDesc desc;
  const Geometry geometry = geometry_of(function, dy_in.view(), stride, dilation);
  const auto describe = [&](const std::int64_t* x_extents) {
    return describe_backward_data(dy_in.view(), alpha_in.view(), c.is_none() ? nullptr : &c_in.view(), geometry,
                                  x_extents, desc);
  };
  Status status = describe(axes > 2 ? shape + 2 : nullptr);
  // Where the fault is with the shape of out, bind_output says so.
  if (!status.ok() && x_shape.is_none()) status = describe(nullptr);
  raise_if_failed(status);
  if (!x_shape.is_none() && (shape[0] != desc.batch || shape[1] != desc.c_in)) {
    raise(fail(StatusCode::invalid_argument,
               "%s: x_shape begins with (%lld, %lld), expected (N, c_in) = (%lld, %lld) from dy and alpha", function,
               static_cast<long long>(shape[0]), static_cast<long long>(shape[1]), static_cast<long long>(desc.batch),
               static_cast<long long>(desc.c_in)));
  }
  nb::object dx = output(out, allocate, Output::dx, desc);
  if (out.is_none() || !x_shape.is_none()) dx_out.import(dx, {function, "out (dx)"}, work);
  raise_if_failed(bind_output(Operation::backward_data, Output::dx, dx_out.view(), desc));
  run(Operation::backward_data, function, desc, dy_in.view().device, work, allocate, implementation,
      [&](const Context& context) {
        return backward_data(desc, dy_in.view().data, alpha_in.view().data, c_in.view().data, dx_out.view().data,
                             context);
      });
  return dx;
}

// The arrays of `out`, or as many None when it is None. One of them being None is a mistake, which their import finds.
template <std::size_t count>
std::array<nb::object, count> given_outputs(nb::handle out, const char* function, const char* names) {
  std::array<nb::object, count> arrays;
  for (nb::object& array : arrays) array = nb::none();
  if (out.is_none()) return arrays;
  if (!PyTuple_Check(out.ptr()) && !PyList_Check(out.ptr())) {
    raise(fail(StatusCode::invalid_type, "%s: out is not a tuple of arrays %s", function, names));
  }
  nb::object tuple = nb::steal(PySequence_Tuple(out.ptr()));
  if (!tuple.is_valid()) throw nb::python_error();
  if (PyTuple_Size(tuple.ptr()) != static_cast<Py_ssize_t>(count)) {
    raise(fail(StatusCode::invalid_argument, "%s: out has %lld entries, expected %s", function,
               static_cast<long long>(PyTuple_Size(tuple.ptr())), names));
  }
  for (std::size_t i = 0; i < count; ++i) {
    arrays[i] = nb::borrow(PyTuple_GetItem(tuple.ptr(), static_cast<Py_ssize_t>(i)));
  }
  return arrays;
}

nb::object py_backward_weight(nb::handle x, nb::handle dy, nb::handle out, nb::handle allocate, nb::handle stride,
                              nb::handle dilation, nb::handle implementation, nb::handle given_stream) {
  static constexpr const char* function = "backward_weight";
  WorkStream work(nb::borrow(given_stream));
  auto [dalpha, dc] = given_outputs<2>(out, function, "(dalpha, dc)");
  ImportedArray x_in, dy_in, dalpha_out, dc_out;
  x_in.import(x, {function, "x"}, work);
  dy_in.import(dy, {function, "dy"}, work);

  ConvDesc desc;
  raise_if_failed(
      describe_backward_weight(x_in.view(), dy_in.view(), geometry_of(function, x_in.view(), stride, dilation), desc));
  if (out.is_none()) {
    dalpha = output(dalpha, allocate, Output::dalpha, desc);
    dc = output(dc, allocate, Output::dc, desc);
  }
  dalpha_out.import(dalpha, {function, "out (dalpha)"}, work);
  raise_if_failed(bind_output(Operation::backward_weight, Output::dalpha, dalpha_out.view(), desc));
  dc_out.import(dc, {function, "out (dc)"}, work);
  raise_if_failed(bind_output(Operation::backward_weight, Output::dc, dc_out.view(), desc));
  run(Operation::backward_weight, function, desc, x_in.view().device, work, allocate, implementation,
      [&](const Context& context) {
        return backward_weight(desc, x_in.view().data, dy_in.view().data, dalpha_out.view().data, dc_out.view().data,
                               context);
      });
  return nb::make_tuple(dalpha, dc);
}

nb::object py_backward(nb::handle x, nb::handle dy, nb::handle alpha, nb::handle c, nb::handle out, nb::handle allocate,
                       nb::handle allocate_weights, nb::handle stride, nb::handle dilation, nb::handle implementation,
                       nb::handle given_stream) {
  static constexpr const char* function = "backward";
  WorkStream work(nb::borrow(given_stream));
  auto [dx, dalpha, dc] = given_outputs<3>(out, function, "(dx, dalpha, dc)");
  ImportedArray x_in, dy_in, alpha_in, c_in, dx_out, dalpha_out, dc_out;
  x_in.import(x, {function, "x"}, work);
  dy_in.import(dy, {function, "dy"}, work);
  alpha_in.import(alpha, {function, "alpha"}, work);
  c_in.import(c, {function, "c"}, work);

  ConvDesc desc;
  raise_if_failed(describe_backward(x_in.view(), dy_in.view(), alpha_in.view(), c_in.view(),
                                    geometry_of(function, x_in.view(), stride, dilation), desc));
  if (out.is_none()) {
    dx = output(dx, allocate, Output::dx, desc);
    dalpha = output(dalpha, allocate_weights, Output::dalpha, desc);
    dc = output(dc, allocate_weights, Output::dc, desc);
  }
  dx_out.import(dx, {function, "out (dx)"}, work);
  raise_if_failed(bind_output(Operation::backward, Output::dx, dx_out.view(), desc));
  dalpha_out.import(dalpha, {function, "out (dalpha)"}, work);
  raise_if_failed(bind_output(Operation::backward, Output::dalpha, dalpha_out.view(), desc));
  dc_out.import(dc, {function, "out (dc)"}, work);
  raise_if_failed(bind_output(Operation::backward, Output::dc, dc_out.view(), desc));
  run(Operation::backward, function, desc, x_in.view().device, work, allocate_weights, implementation,
      [&](const Context& context) {
        return backward(desc, x_in.view().data, dy_in.view().data, alpha_in.view().data, c_in.view().data,
                        dx_out.view().data, dalpha_out.view().data, dc_out.view().data, context);
      });
  return nb::make_tuple(dx, dalpha, dc);
}

// Numbers of all groups one after the other, from a sequence of sequences.
std::vector<std::int64_t> offsets_of(nb::handle offsets, int dims) {
  static constexpr ArgumentName name{"shift", "offsets"};
  nb::object groups = converted(PySequence_Tuple(offsets.ptr()), name);
  const Py_ssize_t count = PyTuple_Size(groups.ptr());
  if (count == 0) {
    raise(fail(StatusCode::invalid_argument, "%s: %s is empty, expected at least one", name.function, name.argument));
  }
  std::vector<std::int64_t> result(static_cast<std::size_t>(count * dims));
  for (Py_ssize_t g = 0; g < count; ++g) {
    std::int64_t offset[max_dims];
    const int length = integers(PyTuple_GetItem(groups.ptr(), g), name, max_dims, offset);
    if (length != dims) {
      raise(fail(StatusCode::invalid_argument, "%s: entry %lld of %s has %d numbers, expected %d as x has spatial axes",
                 name.function, static_cast<long long>(g), name.argument, length, dims));
    }
    std::copy_n(offset, dims, result.begin() + g * dims);
  }
  return result;
}

nb::object py_shift(nb::handle x, nb::handle offsets, nb::handle out, nb::handle allocate) {
  ImportedArray x_in, y_out;
  WorkStream default_stream{nb::int_(0)};  // for the export of CUDA arrays, which are refused further down
  x_in.import(x, {"shift", "x"}, default_stream);
  ShiftDesc desc;
  raise_if_failed(describe_shift(x_in.view(), desc));
  std::vector<std::int64_t> numbers;
  if (!offsets.is_none()) {
    numbers = offsets_of(offsets, desc.dims);
    desc.offsets = numbers.data();
    desc.groups = static_cast<std::int64_t>(numbers.size()) / desc.dims;
  }
  nb::object y = nb::borrow(out);
  if (out.is_none()) y = allocate(shape_tuple(x_in.view().ndim, x_in.view().shape));
  y_out.import(y, {"shift", "out (y)"}, default_stream);
  raise_if_failed(bind_shift_output(y_out.view(), desc));
  Context context;
  context.device = x_in.view().device;
  Status status;
  {
    nb::gil_scoped_release release;
    status = shift(desc, x_in.view().data, y_out.view().data, context);
  }
  raise_if_failed(status);
  return y;
}

nb::dict xla_handlers() {
  nb::dict result;
  for (const XlaHandler& handler : xla_handler_table()) {
    if (!result.contains(handler.platform)) result[handler.platform] = nb::dict();
    result[handler.platform][handler.name] = nb::capsule(reinterpret_cast<void*>(handler.function));
  }
  return result;
}

nb::list implementations() {
  nb::list result;
  for (std::size_t i = 0; i < implementation_count(); ++i) {
    const ImplementationInfo info = implementation_info(i);
    result.append(nb::make_tuple(info.name, info.description, info.available));
  }
  return result;
}

const char* selected(const char* operation, const char* dtype, const nb::typed<nb::sequence, std::int64_t>& x_shape,
                     std::int64_t c_out) {
  static constexpr const char* function = "selected_implementation";
  const auto which = std::find(std::begin(operation_names), std::end(operation_names), std::string_view(operation));
  const auto type = std::find_if(std::begin(dtypes), std::end(dtypes),
                                 [&](const DTypeInfo& each) { return std::string_view(dtype) == each.name; });
  if (which == std::end(operation_names) || type == std::end(dtypes)) {
    raise(fail(StatusCode::invalid_argument,
               "%s: expected one of forward, backward_data, backward_weight, backward and one of float32, float64, "
               "float16, bfloat16",
               function));
  }
  std::int64_t shape[max_axes] = {};
  const int axes = integers(x_shape, {function, "x_shape"}, max_axes, shape);
  if (axes < 3)
    raise(fail(StatusCode::invalid_argument, "%s: x_shape has %d entries, expected 3 to 6", function, axes));
  const ConvDesc desc = compact_desc(type->dtype, axes - 2, shape[0], shape[1], c_out, shape + 2);
  const char* name = nullptr;
  raise_if_failed(selected_implementation(static_cast<Operation>(which - operation_names), desc, Context{}, name));
  return name;
}

}  // namespace

NB_MODULE(_core, m) {
  using namespace nb::literals;
  m.doc() =
      "The compiled part of leancore. Use the functions of the package itself: these check nothing about the "
      "framework that an array comes from.";

  m.def("forward", &py_forward, "x"_a.none(), "alpha"_a.none(), "c"_a.none(), "bias"_a.none() = nb::none(),
        "out"_a.none() = nb::none(), "allocate"_a.none() = nb::none(), "stride"_a.none() = 1, "dilation"_a.none() = 1,
        "implementation"_a.none() = nb::none(), "stream"_a.none() = nb::none(),
        nb::sig("def forward(x: object, alpha: object, c: object | None, bias: object | None = None, "
                "out: object | None = None, allocate: "
                "collections.abc.Callable[[tuple[int, ...]], object] | None = None, "
                "stride: int | collections.abc.Sequence[int] = 1, dilation: int | collections.abc.Sequence[int] = 1, "
                "implementation: str | None = None, stream: int | None = None) -> typing.Any"),
        "y, written to out, or to allocate(shape) when out is None.");
  m.def("backward_data", &py_backward_data, "dy"_a.none(), "alpha"_a.none(), "c"_a.none(),
        "x_shape"_a.none() = nb::none(), "out"_a.none() = nb::none(), "allocate"_a.none() = nb::none(),
        "stride"_a.none() = 1, "dilation"_a.none() = 1, "implementation"_a.none() = nb::none(),
        "stream"_a.none() = nb::none(),
        nb::sig("def backward_data(dy: object, alpha: object, c: object | None, "
                "x_shape: collections.abc.Sequence[int] | None = None, out: object | None = None, allocate: "
                "collections.abc.Callable[[tuple[int, ...]], object] | None = None, "
                "stride: int | collections.abc.Sequence[int] = 1, dilation: int | collections.abc.Sequence[int] = 1, "
                "implementation: str | None = None, stream: int | None = None) -> typing.Any"),
        "dx, written to out, or to allocate(shape) when out is None.");
  m.def("backward_weight", &py_backward_weight, "x"_a.none(), "dy"_a.none(), "out"_a.none() = nb::none(),
        "allocate"_a.none() = nb::none(), "stride"_a.none() = 1, "dilation"_a.none() = 1,
        "implementation"_a.none() = nb::none(), "stream"_a.none() = nb::none(),
        nb::sig("def backward_weight(x: object, dy: object, out: tuple[object, object] | None = None, allocate: "
                "collections.abc.Callable[[tuple[int, ...]], object] | None = None, "
                "stride: int | collections.abc.Sequence[int] = 1, dilation: int | collections.abc.Sequence[int] = 1, "
                "implementation: str | None = None, stream: int | None = None) -> tuple[typing.Any, typing.Any]"),
        "(dalpha, dc), written to the pair out, or to allocate(shape) for dalpha and then for dc.");
  m.def(
      "backward", &py_backward, "x"_a.none(), "dy"_a.none(), "alpha"_a.none(), "c"_a.none(),
      "out"_a.none() = nb::none(), "allocate"_a.none() = nb::none(), "allocate_weights"_a.none() = nb::none(),
      "stride"_a.none() = 1, "dilation"_a.none() = 1, "implementation"_a.none() = nb::none(),
      "stream"_a.none() = nb::none(),
      nb::sig(
          "def backward(x: object, dy: object, alpha: object, c: object, "
          "out: tuple[object, object, object] | None = None, allocate: "
          "collections.abc.Callable[[tuple[int, ...]], object] | None = None, allocate_weights: "
          "collections.abc.Callable[[tuple[int, ...]], object] | None = None, "
          "stride: int | collections.abc.Sequence[int] = 1, dilation: int | collections.abc.Sequence[int] = 1, "
          "implementation: str | None = None, stream: int | None = None) -> tuple[typing.Any, typing.Any, typing.Any]"),
      "(dx, dalpha, dc), written to the triple out, or to allocate(shape) for dx and allocate_weights(shape) for "
      "dalpha and then for dc.");

  m.def("shift", &py_shift, "x"_a.none(), "offsets"_a.none() = nb::none(), "out"_a.none() = nb::none(),
        "allocate"_a.none() = nb::none(),
        nb::sig("def shift(x: object, offsets: collections.abc.Sequence[collections.abc.Sequence[int]] | None = None, "
                "out: object | None = None, allocate: collections.abc.Callable[[tuple[int, ...]], object] | None = "
                "None) -> typing.Any"),
        "y, written to out, or to allocate(shape) when out is None.");

  m.def("xla_handlers", &xla_handlers, nb::sig("def xla_handlers() -> dict[str, dict[str, object]]"),
        "For each of XLA's platforms the operations as functions of its foreign function interface, for "
        "jax.ffi.register_ffi_target.");
  m.def("version", &version, "\"major.minor.patch\" of the C++ library.");
  m.def("implementations", &implementations, nb::sig("def implementations() -> list[tuple[str, str, bool]]"),
        "(name, description, this processor can execute it), in the order in which they are tried.");
  m.def("selected_implementation", &selected, "operation"_a, "dtype"_a, "x_shape"_a, "c_out"_a,
        nb::sig("def selected_implementation(operation: str, dtype: str, x_shape: collections.abc.Sequence[int], "
                "c_out: int) -> str"),
        "Name of the implementation that would run an operation on compact arrays with x of that shape.");
  m.def("max_threads", &max_threads, "Threads that a call would use at most now.");
  m.def("thread_backend", &thread_backend, "\"openmp\", \"std\" or \"serial\".");
  m.def("cuda_status", &cuda_status,
        "\"built without CUDA\", or the state of the driver and the compiled architectures.");
  add_limits(m);
}

}  // namespace leancore::python
