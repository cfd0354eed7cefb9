// The kernels' launches, for translation units that no CUDA compiler sees.
#pragma once

#include "fundus/cuda/illumination_steps.hpp"
#include "fundus/cuda/preprocessor.hpp"
#include "fundus/cuda/resample_steps.hpp"
#include "fundus/cuda/thumbnail_step.hpp"

namespace fundus::cuda {

// Each enqueues one kernel and throws CudaError where the launch itself is refused. All pointers in
// the arguments are addresses that the GPU can read or write.
void launch_thumbnail(const ThumbnailArguments& arguments, Stream stream);
void launch_resample(const ResampleArguments& arguments, Stream stream);
void launch_column_sums(const ColumnSumArguments& arguments, Stream stream);
void launch_finish(const FinishArguments& arguments, TensorType type, Stream stream);

} // namespace fundus::cuda
