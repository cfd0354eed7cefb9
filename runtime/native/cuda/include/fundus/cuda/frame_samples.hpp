// A frame at an address that the GPU can read, and how its bytes are read in words.
#pragma once

#include <cstdint>
#include <cstring>

#include "fundus/cuda/host_device.hpp"

namespace fundus::cuda {

// Like fundus::FrameView, with what the kernels would otherwise work out per sample.
struct FrameSamples {
  const std::uint8_t* data = nullptr;
  int height = 0;
  int width = 0;
  std::int64_t row_stride_bytes = 0;
  std::int64_t pixel_stride_bytes = 3;
  std::int64_t channel_stride_bytes = 1;
  int red_channel = 0; // 0 in RGB, 2 in BGR; blue is the other one
};

FUNDUS_HOST_DEVICE inline const std::uint8_t* row_of(const FrameSamples& frame, std::int64_t row) {
  return frame.data + row * frame.row_stride_bytes;
}

// Which channel of the frame holds channel 0, 1, 2 of RGB.
FUNDUS_HOST_DEVICE inline int frame_channel(const FrameSamples& frame, int rgb_channel) {
  return frame.red_channel == 0 ? rgb_channel : 2 - rgb_channel;
}

FUNDUS_HOST_DEVICE inline std::uint8_t sample(const FrameSamples& frame, std::int64_t row,
                                              std::int64_t column, int rgb_channel) {
  return row_of(frame, row)[column * frame.pixel_stride_bytes +
                            frame_channel(frame, rgb_channel) * frame.channel_stride_bytes];
}

FUNDUS_HOST_DEVICE inline bool is_packed(const FrameSamples& frame) {
  return frame.pixel_stride_bytes == 3 && frame.channel_stride_bytes == 1;
}

FUNDUS_HOST_DEVICE inline std::uint32_t misalignment(const std::uint8_t* address) {
  return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(address) & 3U);
}

FUNDUS_HOST_DEVICE inline std::uint32_t aligned_word(const std::uint8_t* address) {
#if defined(__CUDA_ARCH__)
  return *reinterpret_cast<const std::uint32_t*>(address);
#else
  std::uint32_t word = 0;
  std::memcpy(&word, address, sizeof word);
  return word;
#endif
}

// Whether bytes offset - 3 ... offset + 7 of a row lie in [0, end), so that words may be read.
FUNDUS_HOST_DEVICE inline bool readable_in_words(std::int64_t offset, std::int64_t end) {
  return offset >= 3 && offset + 8 <= end;
}

// Four bytes at any address, the first one lowest, out of one or two aligned words: a warp then
// asks for whole lines, which over PCIe decides the speed.
struct FourBytes {
  std::uint32_t low;
  std::uint32_t high;
  std::uint32_t shift;
};

FUNDUS_HOST_DEVICE inline FourBytes load_four(const std::uint8_t* address) {
  const std::uint32_t shift = misalignment(address);
  const std::uint8_t* aligned = address - shift;
  return {aligned_word(aligned), shift == 0 ? 0U : aligned_word(aligned + 4), 8 * shift};
}

// Apart from the loads, so that several are under way before the first one is waited for.
FUNDUS_HOST_DEVICE inline std::uint32_t word_of(const FourBytes& bytes) {
  const std::uint64_t both = static_cast<std::uint64_t>(bytes.high) << 32 | bytes.low;
  return static_cast<std::uint32_t>(both >> bytes.shift);
}

// Bytes offset ... offset + 3 of a row, 0 where they lie outside [0, end).
FUNDUS_HOST_DEVICE inline std::uint32_t load_edge(const std::uint8_t* row, std::int64_t offset,
                                                  std::int64_t end) {
  std::uint32_t word = 0;
  for (int k = 0; k < 4; ++k) {
    if (offset + k < 0 || offset + k >= end) continue;
    word |= static_cast<std::uint32_t>(row[offset + k]) << (8 * k);
  }
  return word;
}

} // namespace fundus::cuda
