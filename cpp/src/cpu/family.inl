// The kernels of one instruction set, and the functions of its row in the registry. Needs LEANCORE_VECTOR_BYTES and,
// for what compiler vectors cannot say, LEANCORE_AVX2 or LEANCORE_AVX512; isa.hpp; an open namespace of its own.

// clang-format off: each needs those before it
#include "cpu/vec.inl"
#include "cpu/multiply_add.inl"
#include "cpu/partial_sums.inl"
#include "cpu/over_box.inl"
#include "cpu/pack.inl"
#include "cpu/memory.inl"
#include "cpu/channels_first.inl"
#include "cpu/weight_kernel.inl"
#include "cpu/channels_first_driver.inl"
#include "cpu/channels_last.inl"
#include "cpu/channels_last_driver.inl"
// clang-format on

// Calls visit(e) with a value of the element type.
template <typename Visit>
auto with_element(DType dtype, Visit visit) {
  switch (dtype) {
    case DType::f64:
      return visit(double{});
    case DType::f16:
      return visit(f16{});
    case DType::bf16:
      return visit(bf16{});
    case DType::f32:
      break;
  }
  return visit(float{});
}

template <typename Driver>
void run_driver(Operation operation, const ConvDesc& d, const Arguments& a, void* workspace, int threads) {
  using E = typename Driver::Element;
  Driver driver(operation, d, workspace, threads);
  const auto as = [](const void* pointer) { return static_cast<const E*>(pointer); };
  const auto to = [](void* pointer) { return static_cast<E*>(pointer); };
  switch (operation) {
    case Operation::forward:
      return driver.forward(as(a.x), as(a.alpha), as(a.c), as(a.bias), to(a.y));
    case Operation::backward_data:
      return driver.forward(as(a.dy), as(a.alpha), as(a.c), nullptr, to(a.dx));
    case Operation::backward_weight:
      return driver.backward_weight(as(a.x), as(a.dy), to(a.dalpha), to(a.dc));
    case Operation::backward:
      return driver.backward(as(a.x), as(a.dy), as(a.alpha), as(a.c), to(a.dx), to(a.dalpha), to(a.dc));
  }
}

// Calls use(driver) with the type of the layout's driver.
template <typename E>
struct DriverType {
  using type = E;
};
template <typename Use>
auto with_driver(Operation operation, const ConvDesc& d, Use use) {
  return with_element(d.dtype, [&](auto e) {
    using E = decltype(e);
    return is_channels_last(operation, d) ? use(DriverType<ChannelsLast<E>>{}) : use(DriverType<ChannelsFirst<E>>{});
  });
}

std::size_t workspace_bytes(Operation operation, const ConvDesc& d, int threads) {
  const auto bytes_of = [threads](Operation of, const ConvDesc& desc) {
    return with_driver(of, desc,
                       [&](auto driver) { return decltype(driver)::type::workspace_bytes(of, desc, threads); });
  };
  const std::size_t bytes = bytes_of(operation, d);
  if (operation != Operation::backward) return bytes;
  // Any of its outputs may be unwanted.
  return std::max(
      {bytes, bytes_of(Operation::backward_data, data_part(d)), bytes_of(Operation::backward_weight, weight_part(d))});
}

Status run(Operation operation, const ConvDesc& d, const Arguments& arguments, const Context& context, void* workspace,
           int threads) {
  if (operation == Operation::backward) {
    if (!arguments.dx) return run(Operation::backward_weight, weight_part(d), arguments, context, workspace, threads);
    if (!arguments.dalpha && !arguments.dc) {
      return run(Operation::backward_data, data_part(d), arguments, context, workspace, threads);
    }
  }
  with_driver(operation, d, [&](auto driver) {
    run_driver<typename decltype(driver)::type>(operation, d, arguments, workspace, threads);
  });
  return {};
}
