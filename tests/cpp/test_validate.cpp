// Bad input is refused with a message that names the argument, and no output is touched; overlap is found exactly.
#include <limits>
#include <set>

#include "overlap.hpp"
#include "reference/reference.hpp"
#include "registry.hpp"
#include "self_test.hpp"
#include "support.hpp"

namespace {

using leancore::ConvDesc;
using leancore::Operation;
using leancore::Status;
using leancore::StatusCode;
using leancore::detail::Footprint;

struct Call {
  ConvDesc d;
  leancore::Context context;
  std::vector<float> x, alpha, c, bias, y, workspace;
  float *px, *palpha, *pc, *pbias, *py;

  Call() {
    const std::int64_t extents[] = {5, 7};
    d = leancore::compact_desc(leancore::DType::f32, 2, 2, 3, 4, extents);
    x.assign(2 * 3 * 35, 1);
    alpha.assign(12, 1);
    c.assign(12, 1);
    bias.assign(4, 1);
    y.assign(2 * 4 * 35, 77);
    px = x.data();
    palpha = alpha.data();
    pc = c.data();
    pbias = bias.data();
    py = y.data();
    leancore::check(workspace_bytes(Operation::forward, d, context, context.workspace_bytes));
    workspace.resize(context.workspace_bytes / sizeof(float) + 1);
    context.workspace = workspace.data();
  }
  [[nodiscard]] Status run() const { return forward(d, px, palpha, pc, pbias, py, context); }
};

template <typename Change>
void expect(StatusCode code, const char* words, Change change) {
  Call call;
  change(call);
  const Status status = call.run();
  CHECK(status.code == code && std::strstr(status.message, words) && std::strstr(status.message, "forward"),
        "code %d, message '%s', expected code %d and '%s'", static_cast<int>(status.code), status.message,
        static_cast<int>(code), words);
  for (const float value : call.y) CHECK(value == 77, "output touched: %g", static_cast<double>(value));
}

void refusals() {
  constexpr StatusCode bad = StatusCode::invalid_argument;
  constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max() / 2;
  expect(StatusCode::invalid_type, "dtype is 9", [](Call& k) { k.d.dtype = static_cast<leancore::DType>(9); });
  expect(StatusCode::invalid_type, "dtype is -1", [](Call& k) { k.d.dtype = static_cast<leancore::DType>(-1); });
  expect(bad, "dims is 5", [](Call& k) { k.d.dims = 5; });
  expect(bad, "dims is 0", [](Call& k) { k.d.dims = 0; });
  expect(bad, "batch", [](Call& k) { k.d.batch = -1; });
  expect(bad, "extent 1 is -7", [](Call& k) { k.d.extents[1] = -7; });
  expect(bad, "stride 0 is 0", [](Call& k) { k.d.stride[0] = 0; });
  expect(bad, "dilation 1 is -1", [](Call& k) { k.d.dilation[1] = -1; });
  expect(bad, "threads", [](Call& k) { k.context.threads = -2; });
  expect(bad, "device type", [](Call& k) { k.context.device.type = static_cast<leancore::DeviceType>(7); });
  expect(StatusCode::runtime_error, "CUDA", [](Call& k) { k.context.device.type = leancore::DeviceType::cuda; });
  expect(StatusCode::runtime_error, "'avx9'", [](Call& k) { k.context.implementation = "avx9"; });
  expect(StatusCode::overflow, "x of shape", [](Call& k) { k.d.batch = k.d.extents[0] = huge; });
  expect(StatusCode::overflow, "x of shape", [](Call& k) { k.d.x_strides[0] = huge; });
  expect(StatusCode::overflow, "alpha of shape", [](Call& k) { k.d.alpha_strides[0] = -huge; });
  expect(bad, "x is null", [](Call& k) { k.px = nullptr; });
  expect(bad, "alpha is null", [](Call& k) { k.palpha = nullptr; });
  expect(bad, "c is null", [](Call& k) { k.pc = nullptr; });
  expect(bad, "not aligned", [](Call& k) { k.px = reinterpret_cast<float*>(reinterpret_cast<char*>(k.px) + 1); });
  expect(bad, "several elements at one address", [](Call& k) { k.d.y_strides[1] = 0; });
  expect(bad, "several elements at one address", [](Call& k) { k.d.y_strides[2] = 3; });
  expect(bad, "output y overlaps input x", [](Call& k) { k.px = k.py; });
  expect(bad, "output y overlaps input x", [](Call& k) { k.px = k.py + 2 * 4 * 35 - 1; });
  expect(bad, "output y overlaps input alpha", [](Call& k) { k.palpha = k.py - 11; });
  expect(bad, "output y overlaps input bias", [](Call& k) { k.pbias = k.py + 5; });
  expect(bad, "workspace", [](Call& k) { k.context.workspace = nullptr; });
  expect(bad, "workspace has 64 bytes", [](Call& k) { k.context.workspace_bytes = 64; });

  Call call;
  std::vector<float> dalpha(24, 77);
  leancore::check(workspace_bytes(Operation::backward_weight, call.d, {}, call.context.workspace_bytes));
  call.workspace.resize(call.context.workspace_bytes / sizeof(float) + 1);
  call.context.workspace = call.workspace.data();
  const auto weights = [&](float* a, float* c) {
    return backward_weight(call.d, call.px, call.py, a, c, call.context);
  };
  const Status overlapping = weights(dalpha.data(), dalpha.data() + 11);
  CHECK(std::strstr(overlapping.message, "dalpha and dc overlap") && dalpha[11] == 77, "%s", overlapping.message);
  CHECK(weights(dalpha.data(), nullptr).ok() && dalpha[0] != 77 && dalpha[12] == 77, "dc is optional");
  CHECK(weights(nullptr, dalpha.data() + 12).ok() && dalpha[12] != 77, "dalpha is optional");
  CHECK(call.run().ok(), "the call that all others are changed from is valid");
}

// A combined backward whose arrays lie one behind the other in one buffer.
struct Backward {
  static constexpr int x = 0, dy = 210, alpha = 490, c = 502, dx = 514, dalpha = 724, dc = 736, end = 748;
  ConvDesc d;
  leancore::Context context;
  std::vector<float> memory, workspace;

  Backward() {
    const std::int64_t extents[] = {5, 7};
    d = leancore::compact_desc(leancore::DType::f32, 2, 2, 3, 4, extents);
    leancore::check(workspace_bytes(Operation::backward, d, context, context.workspace_bytes));
    workspace.resize(context.workspace_bytes / sizeof(float) + 1);
    context.workspace = workspace.data();
    memory.resize(end);
    for (int i = 0; i < dx; ++i) memory[static_cast<std::size_t>(i)] = static_cast<float>(i % 7 - 3);
    std::fill(memory.begin() + dx, memory.end(), 77.0F);
  }
  // -1 for an offset: null
  [[nodiscard]] Status run(int at_dx = dx, int at_dalpha = dalpha, int at_dc = dc) {
    const auto at = [&](int offset) { return offset < 0 ? nullptr : memory.data() + offset; };
    return backward(d, at(x), at(dy), at(alpha), at(c), at(at_dx), at(at_dalpha), at(at_dc), context);
  }
};

void combined_backward() {
  constexpr int none = -1;
  const auto refuse = [](const char* words, auto change) {
    Backward b;
    const std::vector<float> before = b.memory;
    const Status status = change(b);
    CHECK(status.code != StatusCode::ok && std::strstr(status.message, words) &&
              std::strstr(status.message, "backward: ") == status.message,
          "message '%s', expected '%s'", status.message, words);
    CHECK(b.memory == before, "output touched: %s", words);
  };
  // Every output against every input and against every other output, by one element at either end.
  const struct {
    const char* name;
    int begin, end;
  } inputs[] = {{"x", 0, 210}, {"dy", 210, 490}, {"alpha", 490, 502}, {"c", 502, 514}};
  for (const auto& input : inputs) {
    const std::string words = std::string("overlaps input ") + input.name;
    refuse(words.c_str(), [&](Backward& b) { return b.run(input.end - 1, none, none); });
    refuse(words.c_str(), [&](Backward& b) { return b.run(none, input.end - 1, none); });
    refuse(words.c_str(), [&](Backward& b) { return b.run(none, none, input.end - 1); });
    refuse(words.c_str(), [&](Backward& b) { return b.run(Backward::dx, Backward::dalpha, input.begin); });
  }
  refuse("outputs dx and dalpha overlap", [](Backward& b) { return b.run(514, 723); });
  refuse("outputs dx and dc overlap", [](Backward& b) { return b.run(514, 736, 723); });
  refuse("outputs dalpha and dc overlap", [](Backward& b) { return b.run(514, 724, 735); });
  refuse("dx place several elements at one address", [](Backward& b) {
    b.d.dx_strides[1] = 0;
    return b.run();
  });
  refuse("dalpha place several elements at one address", [](Backward& b) {
    b.d.dalpha_strides[0] = 1;
    return b.run();
  });
  refuse("dc of shape", [](Backward& b) {
    b.d.dc_strides[0] = std::numeric_limits<std::int64_t>::max() / 2;
    return b.run();
  });
  refuse("workspace", [](Backward& b) {
    b.context.workspace_bytes = 64;
    return b.run();
  });
  refuse("'avx9'", [](Backward& b) {
    b.context.implementation = "avx9";
    return b.run();
  });

  Backward all;
  CHECK(all.run().ok(), "the call that all others are changed from is valid");
  for (int wanted = 0; wanted < 8; ++wanted) {
    Backward some;
    const bool dx = wanted & 1, dalpha = wanted & 2, dc = wanted & 4;
    const Status status =
        some.run(dx ? Backward::dx : none, dalpha ? Backward::dalpha : none, dc ? Backward::dc : none);
    CHECK(status.ok(), "%s", status.message);
    for (int i = Backward::dx; i < Backward::end; ++i) {
      const bool written = i < Backward::dalpha ? dx : i < Backward::dc ? dalpha : dc;
      const auto at = static_cast<std::size_t>(i);
      CHECK(some.memory[at] == (written ? all.memory[at] : 77.0F), "element %d, wanted %d", i, wanted);
    }
  }
}

// What a combined backward needs, and who runs it, where it is made of two calls or one.
void combined_workspace() {
  for (const leancore::DTypeInfo& type : leancore::dtypes) {
    const std::int64_t extents[] = {30, 40};
    const ConvDesc d = leancore::compact_desc(type.dtype, 2, 8, 32, 48, extents);
    for (const char* name : {"reference", static_cast<const char*>(nullptr)}) {
      const leancore::Context context = test::forced(name);
      const char* chosen = nullptr;
      leancore::check(selected_implementation(Operation::backward, d, context, chosen));
      CHECK(chosen && (!name || std::strcmp(chosen, name) == 0), "%s was selected", chosen);
      std::size_t both = 0, data = 0, weight = 0;
      leancore::check(workspace_bytes(Operation::backward, d, context, both));
      leancore::check(workspace_bytes(Operation::backward_data, d, context, data));
      leancore::check(workspace_bytes(Operation::backward_weight, d, context, weight));
      const leancore::detail::Implementation* fused = nullptr;
      const bool parts =
          leancore::detail::choose(Operation::backward, d, context, fused).code == StatusCode::unsupported;
      CHECK(!parts || both == std::max(data, weight), "%zu bytes, of the parts %zu and %zu", both, data, weight);
    }
  }
}

std::set<std::intptr_t> addresses(const Footprint& f) {
  std::set<std::intptr_t> all;
  std::vector<std::int64_t> at(static_cast<std::size_t>(f.axes), 0);
  for (;;) {
    std::intptr_t address = f.base;
    for (int a = 0; a < f.axes; ++a) address += at[static_cast<std::size_t>(a)] * f.strides[a] * 4;
    all.insert(address);
    int a = f.axes;
    while (a > 0 && ++at[static_cast<std::size_t>(a - 1)] == f.shape[a - 1]) at[static_cast<std::size_t>(--a)] = 0;
    if (a == 0) return all;
  }
}

// Against the plain sets of addresses.
void overlaps() {
  test::Random random(4);
  int sharing = 0, disjoint = 0, self = 0;
  while (sharing < 1000 || disjoint < 1000) {
    Footprint pair[2];
    for (Footprint& f : pair) {
      f.base = 4096 + 4 * random.integer(0, 40);
      f.axes = static_cast<int>(random.integer(1, 4));
      for (int a = 0; a < f.axes; ++a) {
        f.shape[a] = random.integer(1, 4);
        f.strides[a] = random.integer(-12, 12);
      }
    }
    const std::set<std::intptr_t> left = addresses(pair[0]), right = addresses(pair[1]);
    bool shared = false;
    for (const std::intptr_t address : left) shared = shared || right.count(address);
    (shared ? sharing : disjoint)++;
    CHECK(overlap(pair[0], pair[1], 4) == shared, "pair %d", sharing + disjoint);

    std::int64_t elements = 1;
    for (int a = 0; a < pair[0].axes; ++a) elements *= pair[0].shape[a];
    const bool folded = static_cast<std::int64_t>(left.size()) < elements;
    self += folded;
    if (folded) CHECK(overlaps_itself(pair[0]), "missed an array that overlaps itself");
  }
  CHECK(self > 100, "only %d arrays overlapped themselves", self);
}

// The self-test lets a sound implementation pass and stops one that is wrong in one element.
void self_test() {
  using leancore::detail::Implementation;
  const Implementation& best = *leancore::detail::cpu_implementations().front();
  if (!best.available()) return;
  CHECK(leancore::detail::passes_self_test(best), "%s fails its self-test", best.name);
  static const Implementation* sound = &best;
  Implementation wrong = best;
  wrong.run = [](Operation operation, const ConvDesc& d, const leancore::detail::Arguments& a,
                 const leancore::Context& context, void* workspace, int threads) {
    const Status status = sound->run(operation, d, a, context, workspace, threads);
    if (operation == Operation::backward_weight && d.dtype == leancore::DType::f64) static_cast<double*>(a.dc)[3] += 1;
    return status;
  };
  CHECK(!leancore::detail::passes_self_test(wrong), "a wrong dc passes the self-test");

  // The same of the types and the operation that not every implementation has.
  wrong = leancore::detail::reference::implementation;
  CHECK(leancore::detail::passes_self_test(wrong), "the reference fails the self-test");
  wrong.run = [](Operation operation, const ConvDesc& d, const leancore::detail::Arguments& a,
                 const leancore::Context& context, void* workspace, int threads) {
    const leancore::detail::Implementation& reference = leancore::detail::reference::implementation;
    const Status status = reference.run(operation, d, a, context, workspace, threads);
    if (operation == Operation::forward && d.dtype == leancore::DType::bf16) ++static_cast<std::uint16_t*>(a.y)[5];
    return status;
  };
  CHECK(!leancore::detail::passes_self_test(wrong), "a wrong y in bf16 passes the self-test");
  wrong = leancore::detail::reference::implementation;
  wrong.supports = [](Operation, const ConvDesc&) { return true; };  // its backward writes nothing
  CHECK(!leancore::detail::passes_self_test(wrong), "an empty backward passes the self-test");
}

}  // namespace

int main() {
  refusals();
  combined_backward();
  combined_workspace();
  overlaps();
  self_test();
  return test::summary("validate");
}
