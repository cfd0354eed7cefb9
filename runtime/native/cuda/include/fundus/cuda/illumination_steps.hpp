// Kernels 3 and 4: the illumination correction inside the mask, normalisation and layout.
//
// Kernel 3 sums masked levels over the window's rows, a strip of rows a thread, sliding down.
// Kernel 4 takes one row a block, turns those sums into prefix sums along the row, and so has every
// box sum as a difference of two. Box sums are whole numbers below 2^31, hence exact.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

#include "fundus/cuda/host_device.hpp"
#include "fundus/spec.hpp"

namespace fundus::cuda {

inline constexpr int kStripRows = 8;
inline constexpr int kRowThreads = 256;

// Sums over some pixels inside the mask, and how many these are. Not initialised by itself: shared
// memory cannot be.
struct alignas(16) MaskedSums {
  std::uint32_t red, green, blue, count;
};

FUNDUS_HOST_DEVICE inline MaskedSums plus(const MaskedSums& a, const MaskedSums& b) {
  return {a.red + b.red, a.green + b.green, a.blue + b.blue, a.count + b.count};
}

FUNDUS_HOST_DEVICE inline MaskedSums minus(const MaskedSums& a, const MaskedSums& b) {
  return {a.red - b.red, a.green - b.green, a.blue - b.blue, a.count - b.count};
}

// A pixel of the crop as it lies in memory: red lowest, then green, blue, and 1 inside the mask.
FUNDUS_HOST_DEVICE inline std::uint32_t channel_of(std::uint32_t pixel, int channel) {
  return pixel >> (8 * channel) & 0xFFU;
}

FUNDUS_HOST_DEVICE inline MaskedSums masked(std::uint32_t pixel) {
  const std::uint32_t inside = pixel >> 24;
  return {inside * channel_of(pixel, 0), inside * channel_of(pixel, 1),
          inside * channel_of(pixel, 2), inside};
}

struct ColumnSumArguments {
  const std::uint32_t* crop = nullptr; // size x size
  MaskedSums* sums = nullptr;          // size x size
  int size = 0;
  int radius = 0; // the window is 2 radius + 1 wide
};

// Kernel 3, one thread: the sums over rows y - radius ... y + radius of one column, for a strip.
FUNDUS_HOST_DEVICE inline void sum_down(const ColumnSumArguments& arguments, int column,
                                        int strip) {
  const int size = arguments.size;
  const int first = strip * kStripRows;
  const int end = smaller(first + kStripRows, size);
  const auto at = [&](int row) {
    return masked(arguments.crop[static_cast<std::int64_t>(row) * size + column]);
  };
  MaskedSums sum{};
  for (int row = larger(first - arguments.radius, 0); row < smaller(first + arguments.radius, size);
       ++row) {
    sum = plus(sum, at(row));
  }
  for (int row = first; row < end; ++row) {
    if (row + arguments.radius < size) sum = plus(sum, at(row + arguments.radius));
    arguments.sums[static_cast<std::int64_t>(row) * size + column] = sum;
    if (row - arguments.radius >= 0) sum = minus(sum, at(row - arguments.radius));
  }
}

// What the correction and the normalisation compute with, in FP32 as the reference has it.
struct Tone {
  Illumination illumination = Illumination::none;
  float gain = 1.0F;
  float constant = 0.0F;
  float scale[3] = {1.0F, 1.0F, 1.0F};
  float offset[3] = {0.0F, 0.0F, 0.0F};
};

inline Tone tone_of(const PreprocessSpec& spec) {
  Tone tone;
  tone.illumination = spec.illumination;
  tone.gain = spec.illumination_gain;
  tone.constant = spec.illumination_constant;
  for (int c = 0; c < 3; ++c) {
    const auto channel = static_cast<std::size_t>(c);
    tone.scale[c] = 1.0F / (255.0F * spec.std[channel]);
    tone.offset[c] = spec.mean[channel] / spec.std[channel];
  }
  return tone;
}

struct FinishArguments {
  const std::uint32_t* crop = nullptr;
  const MaskedSums* sums = nullptr; // unused without a correction
  Tone tone;
  int size = 0;
  int radius = 0;
  void* tensor = nullptr; // 3 x size x size, FP32 or FP16
};

// Everything but the tensor's address.
inline FinishArguments finish_arguments(const PreprocessSpec& spec, const std::uint32_t* crop,
                                        const MaskedSums* sums) {
  FinishArguments arguments;
  arguments.crop = crop;
  arguments.sums = sums;
  arguments.tone = tone_of(spec);
  arguments.size = spec.size;
  arguments.radius = spec.illumination_window_px / 2;
  return arguments;
}

// Columns that a thread adds up before the threads' totals are added up.
FUNDUS_HOST_DEVICE inline int chunk_columns(int size) {
  return divided_up(size, kRowThreads);
}

// Kernel 4, step 1: running sums within each thread's columns, and the thread's total.
FUNDUS_HOST_DEVICE inline void start_prefix(const FinishArguments& arguments, int row, int thread,
                                            MaskedSums* prefix, MaskedSums* totals) {
  const int chunk = chunk_columns(arguments.size);
  const MaskedSums* sums = arguments.sums + static_cast<std::int64_t>(row) * arguments.size;
  MaskedSums total{};
  for (int column = thread * chunk; column < smaller((thread + 1) * chunk, arguments.size);
       ++column) {
    total = plus(total, sums[column]);
    prefix[column] = total;
  }
  totals[thread] = total;
}

// Step 2, for distance 1, 2, 4 ... : every thread reads, then all write what they read.
FUNDUS_HOST_DEVICE inline MaskedSums with_total_before(const MaskedSums* totals, int thread,
                                                       int distance) {
  if (thread < distance) return totals[thread];
  return plus(totals[thread], totals[thread - distance]);
}

FUNDUS_HOST_DEVICE inline MaskedSums prefix_at(const MaskedSums* prefix, const MaskedSums* totals,
                                               int chunk, int column) {
  if (column < 0) return {};
  const int thread = column / chunk;
  return thread == 0 ? prefix[column] : plus(prefix[column], totals[thread - 1]);
}

FUNDUS_HOST_DEVICE inline float clipped(float level) {
  const float above = level > 0.0F ? level : 0.0F;
  return above < 255.0F ? above : 255.0F;
}

FUNDUS_HOST_DEVICE inline float corrected(const Tone& tone, std::uint32_t level, std::uint32_t sum,
                                          std::uint32_t count) {
  const auto value = static_cast<float>(level);
  if (tone.illumination == Illumination::none) return value;
  const float mean = static_cast<float>(sum) / static_cast<float>(larger(count, 1U));
  if (tone.illumination == Illumination::subtract) {
    return clipped((value - mean) * tone.gain + tone.constant);
  }
  return clipped(value / larger(mean, 1.0F) * (tone.gain * tone.constant));
}

FUNDUS_HOST_DEVICE inline float normalised(const Tone& tone, int channel, float level) {
  return level * tone.scale[channel] - tone.offset[channel];
}

FUNDUS_HOST_DEVICE inline void store(float* tensor, std::int64_t index, float value) {
  tensor[index] = value;
}

#if defined(__CUDA_FP16_H__) // also where the host includes it
FUNDUS_HOST_DEVICE inline void store(__half* tensor, std::int64_t index, float value) {
  tensor[index] = __float2half_rn(value);
}
#endif

// Step 3: one output pixel. `prefix` and `totals` are not looked at without a correction.
template <typename Value>
FUNDUS_HOST_DEVICE inline void finish_pixel(const FinishArguments& arguments, int row, int column,
                                            const MaskedSums* prefix, const MaskedSums* totals) {
  const int size = arguments.size;
  const std::int64_t index = static_cast<std::int64_t>(row) * size + column;
  const std::int64_t plane = static_cast<std::int64_t>(size) * size;
  const std::uint32_t pixel = arguments.crop[index];
  MaskedSums box{};
  if (arguments.tone.illumination != Illumination::none) {
    const int chunk = chunk_columns(size);
    const int last = smaller(column + arguments.radius, size - 1);
    box = minus(prefix_at(prefix, totals, chunk, last),
                prefix_at(prefix, totals, chunk, column - arguments.radius - 1));
  }
  const std::uint32_t sums[3] = {box.red, box.green, box.blue};
  for (int c = 0; c < 3; ++c) {
    const float level = corrected(arguments.tone, channel_of(pixel, c), sums[c], box.count);
    const float value = pixel >> 24 != 0 ? normalised(arguments.tone, c, level) : 0.0F;
    store(static_cast<Value*>(arguments.tensor), c * plane + index, value);
  }
}

} // namespace fundus::cuda
