#include "limits/loops.hpp"

#define LEANCORE_VECTOR_BYTES 16
#if defined(LEANCORE_X86_64)
#define LEANCORE_CHAINS 12
#define LEANCORE_STREAM(pointer, vector) _mm_stream_ps(reinterpret_cast<float*>(pointer), (__m128)(vector))
#define LEANCORE_FENCE _mm_sfence
#else
#define LEANCORE_CHAINS 24
// No portable store past the caches: the streaming copy is the plain one.
#define LEANCORE_STREAM(pointer, vector) (*(pointer) = (vector))
#define LEANCORE_FENCE() static_cast<void>(0)
#endif

namespace leancore::detail::limits {
namespace {
#include "limits/loops.inl"
}  // namespace
}  // namespace leancore::detail::limits

namespace leancore::detail::limits {

constinit const LimitLoops generic = {
    "generic",
    [] { return true; },
    multiply_add<float>,
    multiply_add<double>,
    flops_per_round<float>,
    flops_per_round<double>,
    copy<false>,
    copy<true>,
};

}  // namespace leancore::detail::limits
