// The functions of leancore._core that measure this machine's limits, for `leancore bench`.
#pragma once

#include <nanobind/nanobind.h>

namespace leancore::python {

void add_limits(nanobind::module_& m);

}  // namespace leancore::python
