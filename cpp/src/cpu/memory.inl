// Source lines of the tile or unit that comes next, fetched into the cache while this one is computed: a few lines at a
// turn, since a core that has asked for more than it can keep track of waits.
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

  // How many turns there will be.
  void spread(std::int64_t turns) {
    lines_per_turn_ = channels_ * (bytes_ / line + 1) / std::max<std::int64_t>(1, turns) + 1;
  }
  LEANCORE_INLINE void fetch() {
    for (std::int64_t lines = lines_per_turn_; lines > 0 && channels_ > 0;) {
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
  std::int64_t channels_ = 0, channel_bytes_ = 0, bytes_ = 0, done_ = 0, lines_per_turn_ = 0;
};

// Whether `out` is so large that the last-level cache cannot keep it.
template <typename E>
bool is_large(const Problem& p, const E*) {
  return p.positions() * p.c_out * static_cast<std::int64_t>(sizeof(E)) >= std::int64_t{16} << 20;
}

// Whether whole vectors of `out` go past the caches: it is large, and as far as the problem tells, vectors begin at
// multiples of their size.
template <typename E>
bool may_stream(const Problem& p, const E* out) {
  using S = Simd<compute_type<E>>;
  return S::template can_stream<E> && !p.zero_rest && is_large(p, out) &&
         reinterpret_cast<std::uintptr_t>(out) % (S::width * sizeof(E)) == 0;
}
