// Source lines of the tile or unit that comes next, fetched into the cache a few at a time between blocks of this one.
class Prefetch {
 public:
  Prefetch() = default;
  // `count` elements of every channel.
  template <typename E>
  Prefetch(const E* base, std::int64_t channels, std::int64_t channel_step, std::int64_t count)
      : at_(reinterpret_cast<const char*>(base)),
        channels_(channels),
        channel_bytes_(channel_step * static_cast<std::int64_t>(sizeof(E))),
        bytes_(count * static_cast<std::int64_t>(sizeof(E))) {}

  [[nodiscard]] std::int64_t lines() const { return channels_ * (bytes_ / line + 1); }
  LEANCORE_INLINE void fetch(std::int64_t lines) {
    while (lines > 0 && channels_ > 0) {
      const std::int64_t left = (bytes_ - done_ + line - 1) / line, now = std::min(lines, left);
      for (std::int64_t i = 0; i < now; ++i) __builtin_prefetch(at_ + done_ + i * line, 0, 2);
      lines -= now;
      done_ += now * line;
      if (now == left) {
        done_ = 0;
        at_ += channel_bytes_;
        --channels_;
      }
    }
  }

 private:
  static constexpr std::int64_t line = 64;
  const char* at_ = nullptr;
  std::int64_t channels_ = 0, channel_bytes_ = 0, bytes_ = 0, done_ = 0;
};

// Whether whole vectors of `out` go past the caches: it is so large that the last-level cache cannot keep it, and as
// far as the problem tells, vectors begin at multiples of their size.
template <typename E>
bool may_stream(const Problem& p, const E* out) {
  using S = Simd<compute_type<E>>;
  constexpr std::int64_t large = std::int64_t{16} << 20;
  return S::template can_stream<E> && !p.zero_rest &&
         p.positions() * p.c_out * static_cast<std::int64_t>(sizeof(E)) >= large &&
         reinterpret_cast<std::uintptr_t>(out) % (S::width * sizeof(E)) == 0;
}
