// A camera's frame as the core sees it: 8-bit colour samples in memory of the caller, any strides.
// Nothing is owned and nothing is copied; the memory must stay valid and unchanged during a call.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fundus {

enum class ColorOrder { rgb, bgr };

// Sample (row, column, channel) lies at data + row * row_stride_bytes + column *
// pixel_stride_bytes + channel * channel_stride_bytes. Strides may be negative, so that flipped
// views work as they are; 3 and 1 are the packed interleaved layout, which is the fastest.
struct FrameView {
  const std::uint8_t* data = nullptr; // first channel of the top left pixel
  int height = 0;
  int width = 0;
  std::ptrdiff_t row_stride_bytes = 0;
  std::ptrdiff_t pixel_stride_bytes = 3;
  std::ptrdiff_t channel_stride_bytes = 1;
  ColorOrder color = ColorOrder::rgb;
};

inline constexpr int kMinFrameSidePx = 64;
// Larger frames would not fit the integer sums; no camera is near.
inline constexpr int kMaxFrameSidePx = 1 << 20;

// Throws std::invalid_argument: no data, or a side out of range.
void require_frame(const FrameView& frame);

// The same frame with a channel stride that is not negative: reversed channels are the other order.
FrameView with_forward_channels(FrameView frame) noexcept;

} // namespace fundus
