// The kernels of the CUDA preprocessing: grid, shared memory and barriers around the steps in
// fundus/cuda/*_step*.hpp, which hold all arithmetic and are tested on the host.
//
// Compiled without contraction into fused multiply-adds (-fmad=false), so that FP32 results equal
// those of the host.
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include "fundus/cuda/error.hpp"
#include "fundus/cuda/kernels.hpp"

namespace fundus::cuda {
namespace {

constexpr int kThumbnailThreads = 128;
constexpr int kColumnThreads = 64;

__global__ void __launch_bounds__(kThumbnailThreads)
    gather_thumbnail_kernel(const ThumbnailArguments arguments) {
  const std::int64_t group =
      static_cast<std::int64_t>(blockIdx.x) * kThumbnailThreads + threadIdx.x;
  if (group < thumbnail_groups(arguments.height, arguments.width)) {
    gather_samples(arguments, group);
  }
}

template <bool kPacked>
__global__ void __launch_bounds__(kResampleThreads)
    resample_kernel(const ResampleArguments arguments) {
  __shared__ std::uint32_t sums[4 * kResampleThreads];
  const auto thread = static_cast<int>(threadIdx.x);
  const Tile tile = tile_of(arguments, static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y));
  const int segments = segments_of(tile);
  std::uint64_t sum = 0;
  for (int segment = 0; segment < segments; ++segment) {
    if (segment > 0) __syncthreads(); // the last segment's sums have been read
    if (kPacked) {
      sum_packed_rows(arguments, tile, segment, thread, sums);
    } else {
      sum_strided_rows(arguments, tile, segment, thread, sums);
    }
    __syncthreads();
    sum += sum_columns(arguments, tile, segment, thread, sums);
  }
  store_level(arguments, tile, thread, sum);
}

__global__ void __launch_bounds__(kColumnThreads)
    column_sums_kernel(const ColumnSumArguments arguments) {
  const auto column = static_cast<int>(blockIdx.x * kColumnThreads + threadIdx.x);
  if (column < arguments.size) sum_down(arguments, column, static_cast<int>(blockIdx.y));
}

template <typename Value>
__global__ void __launch_bounds__(kRowThreads) finish_kernel(const FinishArguments arguments) {
  extern __shared__ MaskedSums prefix[];
  __shared__ MaskedSums totals[kRowThreads];
  const auto thread = static_cast<int>(threadIdx.x);
  const auto row = static_cast<int>(blockIdx.x);
  if (arguments.tone.illumination != Illumination::none) {
    start_prefix(arguments, row, thread, prefix, totals);
    for (int distance = 1; distance < kRowThreads; distance *= 2) {
      __syncthreads();
      const MaskedSums total = with_total_before(totals, thread, distance);
      __syncthreads();
      totals[thread] = total;
    }
    __syncthreads();
  }
  for (int column = thread; column < arguments.size; column += kRowThreads) {
    finish_pixel<Value>(arguments, row, column, prefix, totals);
  }
}

// Not <<<...>>>, whose status only a query for the thread's last error has: that may be another
// library's.
template <typename Arguments>
void launch(const char* name, void (*kernel)(Arguments), dim3 grid, int threads, std::size_t shared,
            const Arguments& arguments, Stream stream) {
  void* parameters[] = {const_cast<Arguments*>(&arguments)};
  require_success(
      cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid,
                       dim3(static_cast<unsigned int>(threads)), parameters, shared, stream),
      name);
}

unsigned int blocks(std::int64_t count, int threads) {
  return static_cast<unsigned int>(divided_up<std::int64_t>(count, threads));
}

} // namespace

void launch_thumbnail(const ThumbnailArguments& arguments, Stream stream) {
  const std::int64_t groups = thumbnail_groups(arguments.height, arguments.width);
  launch("gather_thumbnail_kernel", gather_thumbnail_kernel, blocks(groups, kThumbnailThreads),
         kThumbnailThreads, 0, arguments, stream);
}

void launch_resample(const ResampleArguments& arguments, Stream stream) {
  const dim3 grid(blocks(arguments.size, arguments.tile_columns),
                  static_cast<unsigned int>(arguments.size));
  launch("resample_kernel",
         is_packed(arguments.frame) ? resample_kernel<true> : resample_kernel<false>, grid,
         kResampleThreads, 0, arguments, stream);
}

void launch_column_sums(const ColumnSumArguments& arguments, Stream stream) {
  const dim3 grid(blocks(arguments.size, kColumnThreads), blocks(arguments.size, kStripRows));
  launch("column_sums_kernel", column_sums_kernel, grid, kColumnThreads, 0, arguments, stream);
}

void launch_finish(const FinishArguments& arguments, TensorType type, Stream stream) {
  const dim3 grid(static_cast<unsigned int>(arguments.size));
  const std::size_t shared = static_cast<std::size_t>(arguments.size) * sizeof(MaskedSums);
  launch("finish_kernel", type == TensorType::fp16 ? finish_kernel<__half> : finish_kernel<float>,
         grid, kRowThreads, shared, arguments, stream);
}

} // namespace fundus::cuda
