#include "limits.hpp"

#include <nanobind/stl/optional.h>

#include <optional>
#include <string_view>

#include "dlpack_import.hpp"
#include "errors.hpp"
#include "leancore/runtime.hpp"
#include "limits/limits.hpp"
#include "status.hpp"

namespace nb = nanobind;

namespace leancore::python {

using detail::fail;

namespace {

using Name = std::optional<const char*>;  // None: the best

const detail::LimitLoops& loops_of(const char* function, Name instruction_set) {
  const detail::LimitLoops* loops = detail::find_limit_loops(instruction_set.value_or(nullptr));
  if (loops == nullptr) {
    raise(fail(StatusCode::invalid_argument,
               "%s: instruction_set '%s' is not one that limit_loops() lists as available", function,
               instruction_set.value_or("")));
  }
  return *loops;
}

void require_threads(const char* function, int threads) {
  if (threads >= 1 && threads <= max_threads()) return;
  raise(fail(StatusCode::invalid_argument, "%s: threads is %d, expected 1 to %d", function, threads, max_threads()));
}

nb::list limit_loops() {
  nb::list result;
  for (const detail::LimitLoops* loops : detail::limit_loops()) {
    result.append(nb::make_tuple(loops->name, loops->available()));
  }
  return result;
}

double multiply_add(std::int64_t rounds, int threads, const char* dtype, Name instruction_set) {
  static constexpr const char* function = "run_multiply_add";
  const bool single = std::string_view(dtype) == "float32";
  if (rounds < 1 || (!single && std::string_view(dtype) != "float64")) {
    raise(
        fail(StatusCode::invalid_argument, "%s: expected rounds of at least 1 and dtype float32 or float64", function));
  }
  require_threads(function, threads);
  const detail::LimitLoops& loops = loops_of(function, instruction_set);
  nb::gil_scoped_release release;
  return detail::run_multiply_add(loops, single ? DType::f32 : DType::f64, rounds, threads);
}

// A row of floats that the copy loops can run over; its length in bytes.
std::size_t copyable(const char* function, const char* name, const Array& array) {
  const auto bytes = static_cast<std::size_t>(array.ndim == 1 ? array.shape[0] : 0) * sizeof(float);
  if (array.device.type != DeviceType::cpu || array.dtype != DType::f32 || array.ndim != 1 || array.strides[0] != 1 ||
      bytes == 0 || bytes % detail::limit_block != 0 || reinterpret_cast<std::uintptr_t>(array.data) % 64 != 0) {
    raise(fail(StatusCode::invalid_argument,
               "%s: %s is not a contiguous float32 row on the CPU, aligned to 64 bytes, of a multiple of %zu bytes",
               function, name, detail::limit_block));
  }
  return bytes;
}

void copy(nb::handle to, nb::handle source, bool streaming, int threads, Name instruction_set) {
  static constexpr const char* function = "run_copy";
  ImportedArray to_out, from_in;
  WorkStream no_stream{nb::none()};  // the loops run on the host
  to_out.import(to, {function, "to"}, no_stream);
  from_in.import(source, {function, "source"}, no_stream);
  const std::size_t bytes = copyable(function, "to", to_out.view());
  const auto begin = reinterpret_cast<std::uintptr_t>(to_out.view().data);
  const auto from = reinterpret_cast<std::uintptr_t>(from_in.view().data);
  if (copyable(function, "source", from_in.view()) != bytes || (begin < from + bytes && from < begin + bytes)) {
    raise(fail(StatusCode::invalid_argument, "%s: to and source differ in length, or overlap", function));
  }
  if (to_out.view().read_only) raise(fail(StatusCode::invalid_buffer, "%s: to is read-only", function));
  require_threads(function, threads);
  const detail::LimitLoops& loops = loops_of(function, instruction_set);
  nb::gil_scoped_release release;
  detail::run_copy(loops, to_out.view().data, from_in.view().data, bytes, streaming, threads);
}

}  // namespace

void add_limits(nb::module_& m) {
  using namespace nb::literals;
  m.def("limit_loops", &limit_loops, nb::sig("def limit_loops() -> list[tuple[str, bool]]"),
        "(name, this processor can execute it) of the instruction sets that the limits can be measured with, the best "
        "first.");
  m.def("run_multiply_add", &multiply_add, "rounds"_a, "threads"_a, "dtype"_a = "float32",
        "instruction_set"_a.none() = nb::none(),
        nb::sig("def run_multiply_add(rounds: int, threads: int, dtype: str = 'float32', "
                "instruction_set: str | None = None) -> float"),
        "Does nothing but multiply-adds on registers of each of the threads; returns how many operations, an add and a "
        "multiply counted as two.");
  m.def("run_copy", &copy, "to"_a, "source"_a, "streaming"_a, "threads"_a, "instruction_set"_a.none() = nb::none(),
        nb::sig("def run_copy(to: object, source: object, streaming: bool, threads: int, "
                "instruction_set: str | None = None) -> None"),
        "Copies a row of float32, with plain stores or with stores past the caches.");
}

}  // namespace leancore::python
