// Which kernel runs a call, with which launch: pure host code that knows no CUDA call, so that every decision is tested
// without a GPU or a CUDA compiler.
//
// How the work is cut depends on the shape and the device's architecture, never on its number of multiprocessors:
// results have the same bits on every GPU of an architecture.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <variant>

#include "implementations.hpp"
#include "parameters.hpp"

namespace leancore::detail::cuda {

// What a plan needs to know of a GPU.
struct DeviceFacts {
  int architecture = 0;                    // compute capability times 10: 80, 86, 90, ...
  std::size_t shared_bytes_per_block = 0;  // the most that a kernel may ask for
};

struct LaunchShape {
  std::uint32_t grid[3] = {1, 1, 1};
  std::uint32_t block = 0;  // threads
  std::uint32_t shared_bytes = 0;
};

// Of every GPU that there is.
inline constexpr std::int64_t most_blocks_x = 0x7fffffff, most_blocks_yz = 65535;

struct ApplyPlan {
  bool adjoint = false;
  bool wide = false;  // 64-bit indices
  LaunchShape launch;
  ApplyParameters<std::int64_t> parameters;
};

// Two launches: partial sums into the workspace, then their sum.
struct WeightPlan {
  bool wide = false;
  LaunchShape launch, reduction;
  WeightParameters<std::int64_t> parameters;
  ReduceParameters reduce;
};

// One launch of a kernel of kernels.def.
struct RowsPlan {
  int tile = 0;        // its row in rows_tiles
  int copy_bytes = 0;  // 16 where everything is so aligned, else less
  bool adjoint = false;
  bool volume = false;  // the instance for volumes
  LaunchShape launch;
  RowsParameters parameters;  // without the pointers
};

// Two launches: alpha in the order in which the kernel takes it, into the workspace; then a kernel of kernels.def.
struct DeepPlan {
  int tile = 0;  // its row in deep_tiles
  int copy_bytes = 0;
  bool adjoint = false;
  LaunchShape packing, launch;
  PackParameters pack;
  DeepParameters parameters;  // without the pointers
};

// Two launches: partial sums by a kernel of kernels.def, then their sum.
struct RowsWeightPlan {
  int tile = 0;  // its row in weight_tiles
  int copy_bytes = 0;
  bool volume = false;  // the instance for volumes
  LaunchShape launch, reduction;
  RowsWeightParameters parameters;  // without the pointers
  ReduceParameters reduce;
};

// Nothing to launch: there is no output element.
struct EmptyPlan {};

// More blocks than a launch can have; no GPU has the memory for such arrays.
struct TooLargePlan {};

struct Plan {
  DType dtype = DType::f32;
  std::size_t workspace_bytes = 0;
  std::variant<EmptyPlan, TooLargePlan, ApplyPlan, WeightPlan, RowsPlan, RowsWeightPlan, DeepPlan> steps;
};

// Which kernels a plan may choose from; `tf32`: those that round factors of fp32 to TF32 rather than others.
enum class Choice { all, tf32, generic };

// Of validated arguments; `operation` is not `backward`, which the dispatcher takes apart.
Plan make_plan(Operation operation, const ConvDesc& desc, const Arguments& arguments, const DeviceFacts& device,
               Choice choice);

// The launch of one row-marching tile, whatever make_plan would choose; nothing where the tile cannot take the call.
std::optional<RowsPlan> plan_tile(int tile, Operation operation, const ConvDesc& desc, const Arguments& arguments);

// The same of a tile for many channels.
std::optional<DeepPlan> plan_deep_tile(int tile, Operation operation, const ConvDesc& desc, const Arguments& arguments);

// What its launches need.
std::size_t workspace_of(const DeepPlan& plan);

// The same of a tile of backward_weight.
std::optional<RowsWeightPlan> plan_weight_tile(int tile, const ConvDesc& desc, const Arguments& arguments);

// Enough for any device, and any arguments of the described arrays.
std::size_t most_workspace(Operation operation, const ConvDesc& desc, Choice choice);

}  // namespace leancore::detail::cuda
