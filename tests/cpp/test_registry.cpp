// The choice among the implementations: every one that the processor executes passes its self-test, the first of them
// is taken, and those for tests never are unless they are asked for. Prints the choice, for scripts that know the
// processor.
#include "support.hpp"

namespace {

bool only_for_tests(const char* name) {
  return std::strcmp(name, "generic256") == 0 || std::strcmp(name, "generic512") == 0;
}

const char* selected(leancore::Operation operation, const leancore::ConvDesc& d, const leancore::Context& context) {
  const char* name = "";
  leancore::check(selected_implementation(operation, d, context, name));
  return name;
}

}  // namespace

int main() {
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
