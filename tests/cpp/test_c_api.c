/* The C header compiles as C, and computes a case worked out by hand. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leancore/leancore.h"

int main(void) {
  /* One image of one row (1, 2, 3), alpha = 10, c = (left 1, right 100), bias 5. */
  const int64_t extents[1] = {3};
  leancore_conv_desc desc = leancore_compact_desc(LEANCORE_F64, 1, 1, 1, 1, extents);
  leancore_context context = leancore_default_context();
  const double x[3] = {1, 2, 3}, alpha[1] = {10}, c[2] = {1, 100}, bias[1] = {5};
  const double expected[3] = {5 + 10 + 200, 5 + 20 + 1 + 300, 5 + 30 + 2};
  const double expected_dx[3] = {10 + 2, 20 + 100 + 3, 30 + 200}; /* the taps mirrored */
  const int64_t right = 1;
  double y[3] = {0, 0, 0}, dx[3], dalpha[1], dc[2];

  leancore_status status =
      leancore_workspace_bytes(LEANCORE_BACKWARD_WEIGHT, &desc, &context, &context.workspace_bytes);
  if (status.code != LEANCORE_OK) return 1;
  context.workspace = malloc(context.workspace_bytes + 1);
  status = leancore_backward_weight(&desc, x, x, dalpha, dc, &context);
  if (status.code != LEANCORE_OK || dalpha[0] != 14 || dc[0] != 1 * 2 + 2 * 3 || dc[1] != 8) {
    printf("backward_weight: %s %g %g %g\n", status.message, dalpha[0], dc[0], dc[1]);
    return 1;
  }
  free(context.workspace);

  status = leancore_workspace_bytes(LEANCORE_BACKWARD, &desc, &context, &context.workspace_bytes);
  if (status.code != LEANCORE_OK) return 1;
  context.workspace = malloc(context.workspace_bytes + 1);
  status = leancore_backward(&desc, x, x, alpha, c, dx, NULL, dc, &context);
  if (status.code != LEANCORE_OK || memcmp(dx, expected_dx, sizeof dx) != 0 || dc[0] != 8 || dc[1] != 8) {
    printf("backward: %s %g %g %g %g %g\n", status.message, dx[0], dx[1], dx[2], dc[0], dc[1]);
    return 1;
  }
  free(context.workspace);

  status = leancore_workspace_bytes(LEANCORE_FORWARD, &desc, &context, &context.workspace_bytes);
  if (status.code != LEANCORE_OK) return 1;
  context.workspace = malloc(context.workspace_bytes + 1);
  status = leancore_forward(&desc, x, alpha, c, bias, y, &context);
  if (status.code != LEANCORE_OK || memcmp(y, expected, sizeof y) != 0) {
    printf("forward: %s %g %g %g\n", status.message, y[0], y[1], y[2]);
    return 1;
  }
  leancore_shift_desc moved = {LEANCORE_F64, 1, 1, 1, {3}, {3, 3, 1}, {3, 3, 1}, 1, &right};
  const double expected_moved[3] = {0, 1, 2};
  status = leancore_shift(&moved, x, y, &context);
  if (status.code != LEANCORE_OK || memcmp(y, expected_moved, sizeof y) != 0) {
    printf("shift: %s %g %g %g\n", status.message, y[0], y[1], y[2]);
    return 1;
  }
  desc.dims = 9;
  status = leancore_forward(&desc, x, alpha, c, bias, y, &context);
  free(context.workspace);
  if (status.code != LEANCORE_INVALID_ARGUMENT || strstr(status.message, "dims is 9") == NULL) {
    printf("dims 9: %s\n", status.message);
    return 1;
  }
  printf("c_api: leancore %s, %s\n", leancore_version(), leancore_thread_backend());
  return 0;
}
