// test_cuda TOPIC: calls on a CUDA device. Exits with 77, which CTest takes for "skipped", where there is none.
#include "topics.hpp"

#include "support.hpp"

int main(int argc, char** argv) {
  constexpr struct {
    const char* name;
    int (*run)();
  } topics[] = {
      {"exact", test_cuda::exact},     {"bounds", test_cuda::bounds},           {"nonfinite", test_cuda::nonfinite},
      {"rows", test_cuda::rows},       {"rows_weight", test_cuda::rows_weight}, {"deep", test_cuda::deep},
      {"wide", test_cuda::wide},       {"errors", test_cuda::errors},           {"streams", test_cuda::streams},
#ifdef LEANCORE_CUDA_EMULATION
      {"traffic", test_cuda::traffic},
#endif
  };
  test::require_device();
  for (const auto& topic : topics) {
    if (argc == 2 && std::strcmp(argv[1], topic.name) == 0) return topic.run();
  }
  std::fprintf(stderr, "usage: %s TOPIC\n", argv[0]);
  return 2;
}
