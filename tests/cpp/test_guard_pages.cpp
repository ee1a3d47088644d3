// Nothing outside the arrays is read or written: every buffer, the workspace included, lies flush against unreadable
// pages, first with its end, then with its start; inputs are read-only pages during the call. A violation is a crash.
#include "support.hpp"

namespace {

template <typename T>
void probe(leancore::ConvDesc d, test::Random& random, test::GuardedMemory::Flush flush) {
  test::set_layout(d, static_cast<test::Layout>(random.integer(0, 2)), random);
  test::Arrays<T> in(d, flush);
  in.fill([&] { return random.integer(-4, 4); });
  for (const test::Array<T>* array : {&in.x, &in.y, &in.alpha, &in.c, &in.bias}) array->make_read_only();
  for (const leancore::Operation operation : test::operations) {
    for (const char* name : test::implementations()) {
      leancore::Context context;
      context.implementation = name;
      test::Arrays<T> out(d, flush);
      T* first = operation == leancore::Operation::forward         ? out.y.origin()
                 : operation == leancore::Operation::backward_data ? out.x.origin()
                                                                   : out.alpha.origin();
      const leancore::Status status = test::run(operation, d, in, first, out.c.origin(), true, context, flush);
      CHECK(status.ok(), "%s", status.message);
    }
  }
}

}  // namespace

int main() {
  test::Random random(99);
  for (int round = 0; round < 700; ++round) {
    for (const auto flush : {test::GuardedMemory::Flush::to_end, test::GuardedMemory::Flush::to_start}) {
      leancore::ConvDesc d = test::random_problem(random, leancore::DType::f32, 5e4);
      if (round % 10 == 0) d.stride[0] = 2;
      probe<float>(d, random, flush);
      d = test::random_problem(random, leancore::DType::f64, 5e4);
      probe<double>(d, random, flush);
    }
  }
  return test::summary("guard_pages");
}
