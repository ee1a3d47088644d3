// What test_cuda tests, by the name that it takes as its argument. One program, because kernels take long to compile.
#pragma once

namespace test_cuda {

int exact();
int bounds();
int nonfinite();
int rows();
int rows_weight();
int deep();
int wide();
int errors();
int streams();
int traffic();  // on an emulated device only

}  // namespace test_cuda
