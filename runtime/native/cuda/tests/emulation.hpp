// The kernels' steps run on the host over the grid that the launches use, blocks and threads in
// turn, with a loop for every stretch between two barriers. It shows the arithmetic and the
// indices; not the launches, nor that the barriers suffice.
#pragma once

#include <cstdint>
#include <vector>

#include "fundus/cuda/illumination_steps.hpp"
#include "fundus/cuda/resample_steps.hpp"
#include "fundus/cuda/thumbnail_step.hpp"
#include "fundus/frame.hpp"
#include "fundus/geometry.hpp"
#include "fundus/spec.hpp"

namespace fundus::cuda::emulation {

inline FrameSamples samples_of(const FrameView& view) {
  const FrameView frame = with_forward_channels(view);
  return {frame.data,
          frame.height,
          frame.width,
          frame.row_stride_bytes,
          frame.pixel_stride_bytes,
          frame.channel_stride_bytes,
          frame.color == ColorOrder::rgb ? 0 : 2};
}

inline void run_thumbnail(const ThumbnailArguments& arguments) {
  const std::int64_t groups = thumbnail_groups(arguments.height, arguments.width);
  for (std::int64_t group = 0; group < groups; ++group) gather_samples(arguments, group);
}

struct Samples {
  int stride = 0;
  int height = 0;
  int width = 0;
  std::vector<std::uint32_t> brightness; // bytes in words, as the kernel stores them
  std::vector<std::uint32_t> rgb;
};

inline Samples gather_thumbnail(const FrameView& frame) {
  ThumbnailArguments arguments = thumbnail_arguments(samples_of(frame));
  const std::int64_t groups = thumbnail_groups(arguments.height, arguments.width);
  Samples samples{arguments.stride, arguments.height, arguments.width, {}, {}};
  samples.brightness.resize(static_cast<std::size_t>(groups));
  samples.rgb.resize(static_cast<std::size_t>(3 * groups));
  arguments.brightness = samples.brightness.data();
  arguments.rgb = samples.rgb.data();
  run_thumbnail(arguments);
  return samples;
}

inline void resample_block(const ResampleArguments& arguments, int block_column, int block_row) {
  const Tile tile = tile_of(arguments, block_column, block_row);
  std::vector<std::uint32_t> sums(4 * kResampleThreads);
  std::vector<std::uint64_t> totals(kResampleThreads, 0);
  for (int segment = 0; segment < segments_of(tile); ++segment) {
    for (int thread = 0; thread < kResampleThreads; ++thread) {
      if (is_packed(arguments.frame)) {
        sum_packed_rows(arguments, tile, segment, thread, sums.data());
      } else {
        sum_strided_rows(arguments, tile, segment, thread, sums.data());
      }
    }
    for (int thread = 0; thread < kResampleThreads; ++thread) {
      totals[static_cast<std::size_t>(thread)] +=
          sum_columns(arguments, tile, segment, thread, sums.data());
    }
  }
  for (int thread = 0; thread < kResampleThreads; ++thread) {
    store_level(arguments, tile, thread, totals[static_cast<std::size_t>(thread)]);
  }
}

inline void run_resample(const ResampleArguments& arguments) {
  for (int row = 0; row < arguments.size; ++row) {
    for (int column = 0; column < divided_up(arguments.size, arguments.tile_columns); ++column) {
      resample_block(arguments, column, row);
    }
  }
}

// size x size pixels: red lowest, green, blue, 1 inside the mask.
inline std::vector<std::uint32_t> resample(const FrameView& frame, const CropBox& box,
                                           const PreprocessSpec& spec) {
  const auto size = static_cast<std::size_t>(spec.size);
  std::vector<AreaTap> taps(2 * size);
  std::vector<std::uint32_t> crop(size * size);
  ResampleArguments arguments = resample_arguments(samples_of(frame), box, spec, taps.data());
  arguments.row_taps = taps.data();
  arguments.column_taps = taps.data() + size;
  arguments.crop = reinterpret_cast<std::uint8_t*>(crop.data());
  run_resample(arguments);
  return crop;
}

template <typename Value>
inline void finish_row(const FinishArguments& arguments, int row) {
  std::vector<MaskedSums> prefix(static_cast<std::size_t>(arguments.size));
  std::vector<MaskedSums> totals(kRowThreads), next(kRowThreads);
  if (arguments.tone.illumination != Illumination::none) {
    for (int thread = 0; thread < kRowThreads; ++thread) {
      start_prefix(arguments, row, thread, prefix.data(), totals.data());
    }
    for (int distance = 1; distance < kRowThreads; distance *= 2) {
      for (int thread = 0; thread < kRowThreads; ++thread) {
        next[static_cast<std::size_t>(thread)] = with_total_before(totals.data(), thread, distance);
      }
      totals = next;
    }
  }
  for (int column = 0; column < arguments.size; ++column) {
    finish_pixel<Value>(arguments, row, column, prefix.data(), totals.data());
  }
}

inline void run_column_sums(const ColumnSumArguments& arguments) {
  for (int strip = 0; strip < divided_up(arguments.size, kStripRows); ++strip) {
    for (int column = 0; column < arguments.size; ++column) sum_down(arguments, column, strip);
  }
}

template <typename Value>
inline void run_finish(const FinishArguments& arguments) {
  for (int row = 0; row < arguments.size; ++row) finish_row<Value>(arguments, row);
}

inline std::vector<float> finish(const std::vector<std::uint32_t>& crop,
                                 const PreprocessSpec& spec) {
  const auto size = static_cast<std::size_t>(spec.size);
  std::vector<MaskedSums> sums(size * size);
  std::vector<float> tensor(3 * size * size);
  FinishArguments arguments = finish_arguments(spec, crop.data(), sums.data());
  arguments.tensor = tensor.data();
  if (spec.illumination != Illumination::none) {
    run_column_sums({crop.data(), sums.data(), spec.size, arguments.radius});
  }
  run_finish<float>(arguments);
  return tensor;
}

} // namespace fundus::cuda::emulation
