// The functions of a row in the registry, from with_driver() and backward_in_one_pass().

template <typename Driver>
void run_driver(Operation operation, const ConvDesc& d, const Arguments& a, void* workspace, int threads) {
  using E = typename Driver::Element;
  Driver driver(operation, d, workspace, threads);
  const auto as = [](const void* pointer) { return static_cast<const E*>(pointer); };
  const auto to = [](void* pointer) { return static_cast<E*>(pointer); };
  constexpr bool out = Driver::writes_out, weights = Driver::sums_weights;
  switch (operation) {
    case Operation::forward:
      if constexpr (out) driver.forward(as(a.x), as(a.alpha), as(a.c), as(a.bias), to(a.y));
      break;
    case Operation::backward_data:
      if constexpr (out) driver.forward(as(a.dy), as(a.alpha), as(a.c), nullptr, to(a.dx));
      break;
    case Operation::backward_weight:
      if constexpr (weights) driver.backward_weight(as(a.x), as(a.dy), to(a.dalpha), to(a.dc));
      break;
    case Operation::backward:
      if constexpr (out && weights) {
        driver.backward(as(a.x), as(a.dy), as(a.alpha), as(a.c), to(a.dx), to(a.dalpha), to(a.dc));
      }
      break;
  }
}

std::size_t workspace_bytes(Operation operation, const ConvDesc& d, int threads) {
  const auto bytes_of = [threads](Operation of, const ConvDesc& desc) {
    return with_driver(of, desc,
                       [&](auto driver) { return decltype(driver)::type::workspace_bytes(of, desc, threads); });
  };
  if (operation != Operation::backward) return bytes_of(operation, d);
  // Any of its outputs may be unwanted.
  return std::max({backward_in_one_pass(d) ? bytes_of(operation, d) : 0,
                   bytes_of(Operation::backward_data, data_part(d)),
                   bytes_of(Operation::backward_weight, weight_part(d))});
}

Status run(Operation operation, const ConvDesc& d, const Arguments& arguments, const Context& context, void* workspace,
           int threads) {
  if (operation == Operation::backward) {
    const bool data = arguments.dx != nullptr, weights = arguments.dalpha != nullptr || arguments.dc != nullptr;
    if (!data || !weights || !backward_in_one_pass(d)) {
      Status status;
      if (data) status = run(Operation::backward_data, data_part(d), arguments, context, workspace, threads);
      if (weights && status.ok()) {
        status = run(Operation::backward_weight, weight_part(d), arguments, context, workspace, threads);
      }
      return status;
    }
  }
  with_driver(operation, d, [&](auto driver) {
    run_driver<typename decltype(driver)::type>(operation, d, arguments, workspace, threads);
  });
  return {};
}
