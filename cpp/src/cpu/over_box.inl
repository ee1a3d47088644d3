// Calls visit(first element, count, stride) for channel 0 of every line of `out` in a box, along the last axis; begin
// and end are by axis, 0 the batch.
template <typename E, typename Visit>
void over_box(const Problem& p, E* at, const std::int64_t* begin, const std::int64_t* end, Visit visit, int axis = 0) {
  const std::int64_t stride = axis == 0 ? p.out_steps[0] : p.out_strides[axis - 1];
  at += begin[axis] * stride;
  if (axis >= std::min(p.dims, max_dims)) {
    if (begin[axis] < end[axis]) visit(at, end[axis] - begin[axis], stride);
    return;
  }
  for (std::int64_t i = begin[axis]; i < end[axis]; ++i, at += stride) over_box(p, at, begin, end, visit, axis + 1);
}
