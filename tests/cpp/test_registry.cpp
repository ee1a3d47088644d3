// The choice among the implementations: every one that the processor executes passes its self-test, the first of them
// is taken, those for tests never are unless they are asked for, and the self-test finds defects. Prints the choice,
// for scripts that know the processor.
#include "cpu/kernels.hpp"
#include "self_test.hpp"
#include "support.hpp"

namespace {

using leancore::detail::Arguments;
using leancore::detail::Implementation;

// The generic kernels with a defect: `spoil` changes the call.
template <typename Spoil>
Implementation spoiled(Spoil) {
  Implementation row = leancore::detail::cpu::generic;
  row.run = [](leancore::Operation operation, const leancore::ConvDesc& desc, const Arguments& arguments,
               const leancore::Context& context, void* workspace, int threads) {
    leancore::ConvDesc d = desc;
    Arguments a = arguments;
    Spoil{}(operation, d, a);
    return leancore::detail::cpu::generic.run(operation, d, a, context, workspace, threads);
  };
  return row;
}

void self_test_finds_defects() {
  using leancore::ConvDesc;
  using leancore::DType;
  using leancore::Operation;
  const Implementation rows[] = {
      spoiled([](Operation, ConvDesc&, Arguments&) {}),
      spoiled([](Operation, ConvDesc&, Arguments& a) { a.bias = nullptr; }),
      spoiled([](Operation, ConvDesc& d, Arguments&) { d.dilation[1] = 1; }),
      spoiled([](Operation, ConvDesc& d, Arguments&) { d.batch -= d.batch > 3 ? 1 : 0; }),
      spoiled([](Operation, ConvDesc& d, Arguments&) { d.c_out -= d.x_strides[1] == 1 ? 1 : 0; }),
      spoiled([](Operation, ConvDesc& d, Arguments&) { d.dtype = d.dtype == DType::f16 ? DType::bf16 : d.dtype; }),
      spoiled([](Operation, ConvDesc& d, Arguments&) { d.dtype = d.dtype == DType::bf16 ? DType::f16 : d.dtype; }),
      spoiled([](Operation which, ConvDesc&, Arguments& a) { a.dc = which == Operation::backward ? nullptr : a.dc; }),
  };
  for (std::size_t i = 0; i < std::size(rows); ++i) {
    CHECK(leancore::detail::passes_self_test(rows[i]) == (i == 0), "row %zu", i);
  }
}

bool only_for_tests(const char* name) {
  return std::strncmp(name, "generic", 7) == 0 && std::strcmp(name, "generic") != 0;
}

const char* selected(leancore::Operation operation, const leancore::ConvDesc& d, const leancore::Context& context) {
  const char* name = "";
  leancore::check(selected_implementation(operation, d, context, name));
  return name;
}

}  // namespace

int main() {
  self_test_finds_defects();
  const auto listed = leancore::detail::cpu_implementations();
  CHECK(leancore::implementation_count() >= listed.size(), "%zu of %zu", leancore::implementation_count(),
        listed.size());
  for (std::size_t i = 0; i < listed.size(); ++i) {
    const leancore::ImplementationInfo row = leancore::implementation_info(i);
    CHECK(std::strcmp(row.name, listed[i]->name) == 0, "%s", row.name);
    CHECK(row.available == listed[i]->available(), "%s: not usable where it is available", row.name);
    std::printf("%s: %s\n", row.name, row.available ? row.description : "not on this processor");
  }

  test::Random random(31);
  for (int round = 0; round < test::rounds(300); ++round) {
    test::for_each_type([&]<typename T>() {
      leancore::ConvDesc d = test::random_problem(random, test::dtype_of<T>, 1e6);
      test::set_layout(d, static_cast<test::Layout>(random.integer(0, 2)), random);
      for (const leancore::Operation operation : test::operations) {
        const std::vector<const char*> names = test::implementations(operation, d);
        const char* best = selected(operation, d, {});
        CHECK(std::strcmp(best, names.front()) == 0 && !only_for_tests(best), "%s for %s", best,
              test::describe(d).c_str());
        for (const char* name : names) {
          const char* got = selected(operation, d, test::forced(name));
          CHECK(std::strcmp(got, name) == 0, "%s instead of %s for %s", got, name, test::describe(d).c_str());
        }
      }
    });
  }

  const std::int64_t extents[] = {32, 32};
  const leancore::ConvDesc d = leancore::compact_desc(leancore::DType::f32, 2, 1, 32, 32, extents);
  const char* name = nullptr;
  CHECK(selected_implementation(leancore::Operation::forward, d, test::forced("no such thing"), name).code ==
            leancore::StatusCode::runtime_error,
        "an unknown name is accepted");
  std::printf("selected: %s\n", selected(leancore::Operation::forward, d, {}));
  return test::summary("registry");
}
