// The kernels of one instruction set, and the functions of its row in the registry: see pieces.inl for what it needs.

#include "cpu/pieces.inl"

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

// Calls use(driver) with the type of the layout's driver.
template <typename Use>
auto with_driver(Operation operation, const ConvDesc& d, Use use) {
  return with_element(d.dtype, [&](auto e) {
    using E = decltype(e);
    return is_channels_last(operation, d) ? use(DriverType<ChannelsLast<E>>{}) : use(DriverType<ChannelsFirst<E>>{});
  });
}

bool backward_in_one_pass(const ConvDesc&) {
  return true;
}

#include "cpu/row.inl"
