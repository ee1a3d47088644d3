// Nothing outside the arrays is read or written: every buffer, the workspace included, lies flush against unreadable
// pages, first with its end, then with its start; inputs are read-only pages during the call. A violation is a crash.
#include "support.hpp"

namespace {

template <typename T>
void probe(test::Random& random, test::GuardedMemory::Flush flush) {
  leancore::ConvDesc d = test::random_problem(random, test::dtype_of<T>, 5e4);
  test::set_layout(d, static_cast<test::Layout>(random.integer(0, 2)), random);
  test::Arrays<T> in(d, flush);
  in.fill([&] { return random.integer(-4, 4); });
  for (const test::Array<T>* array : {&in.x, &in.y, &in.alpha, &in.c, &in.bias}) array->make_read_only();
  for (const leancore::Operation operation : test::operations) {
    for (const char* name : test::implementations(operation, d)) {
      test::Outputs<T> out(operation, d, flush);
      const leancore::Status status = test::run(d, in, out, true, test::forced(name), flush);
      CHECK(status.ok(), "%s", status.message);
    }
  }
}

}  // namespace

int main() {
  test::Random random(99);
  for (int round = 0; round < test::rounds(700); ++round) {
    for (const auto flush : {test::GuardedMemory::Flush::to_end, test::GuardedMemory::Flush::to_start}) {
      test::for_each_type([&]<typename T>() { probe<T>(random, flush); });
    }
  }
  return test::summary("guard_pages");
}
