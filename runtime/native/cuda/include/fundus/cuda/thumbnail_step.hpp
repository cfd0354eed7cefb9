// Kernel 1: plain strided samples of the frame, which the host finds the field of view in.
#pragma once

#include <cstdint>

#include "fundus/cuda/frame_samples.hpp"
#include "fundus/cuda/host_device.hpp"
#include "fundus/field_of_view.hpp"

namespace fundus::cuda {

// `brightness` and `rgb` have room for whole words: thumbnail_groups() words, and thrice as many.
struct ThumbnailArguments {
  FrameSamples frame;
  int stride = 0; // in frame pixels; the first sample lies at stride / 2
  int height = 0; // in samples
  int width = 0;
  std::uint32_t* brightness = nullptr; // height x width bytes, the largest of the three channels
  std::uint32_t* rgb = nullptr;        // height x width x 3 bytes
};

FUNDUS_HOST_DEVICE inline std::int64_t thumbnail_groups(int height, int width) {
  return divided_up<std::int64_t>(static_cast<std::int64_t>(height) * width, 4);
}

// Everything but where the samples go.
inline ThumbnailArguments thumbnail_arguments(const FrameSamples& frame) {
  ThumbnailArguments arguments;
  arguments.frame = frame;
  arguments.stride = thumbnail_stride(frame.height, frame.width);
  arguments.height = thumbnail_length(frame.height, arguments.stride);
  arguments.width = thumbnail_length(frame.width, arguments.stride);
  return arguments;
}

// One thread: four samples, stored as words because the destination lies across PCIe.
FUNDUS_HOST_DEVICE inline void gather_samples(const ThumbnailArguments& arguments,
                                              std::int64_t group) {
  const std::int64_t count = static_cast<std::int64_t>(arguments.height) * arguments.width;
  std::uint32_t brightness = 0;
  std::uint32_t rgb[3] = {0, 0, 0};
  for (int k = 0; k < 4; ++k) {
    const std::int64_t index = 4 * group + k;
    if (index >= count) break;
    const std::int64_t row = index / arguments.width * arguments.stride + arguments.stride / 2;
    const std::int64_t column = index % arguments.width * arguments.stride + arguments.stride / 2;
    std::uint32_t brightest = 0;
    for (int c = 0; c < 3; ++c) {
      const std::uint32_t level = sample(arguments.frame, row, column, c);
      brightest = larger(brightest, level);
      rgb[(3 * k + c) / 4] |= level << (8 * ((3 * k + c) % 4));
    }
    brightness |= brightest << (8 * k);
  }
  arguments.brightness[group] = brightness;
  for (int word = 0; word < 3; ++word) arguments.rgb[3 * group + word] = rgb[word];
}

} // namespace fundus::cuda
