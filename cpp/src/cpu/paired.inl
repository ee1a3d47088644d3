// The kernels that multiply pairs of bf16, and the functions of a row for the calls that takes_pairs(): nothing else is
// compiled. See pieces.inl for what it needs.

#include "cpu/pieces.inl"

// Calls use(driver) with the type of the layout's driver for the operation.
template <typename Use>
auto with_driver(Operation operation, const ConvDesc& d, Use use) {
  if (is_channels_last(operation, d)) return use(DriverType<ChannelsLast<bf16, true>>{});
  if (work_of(operation) == Work::out) return use(DriverType<ChannelsFirst<bf16, Packing::channel_pairs>>{});
  return use(DriverType<ChannelsFirst<bf16, Packing::elements>>{});
}

// Channels first, dy would be packed in two ways: two passes are as fast.
bool backward_in_one_pass(const ConvDesc& d) {
  return is_channels_last(Operation::backward, d);
}

#include "cpu/row.inl"
