#include "fundus/frame.hpp"

#include <stdexcept>
#include <string>

namespace fundus {

void require_frame(const FrameView& frame) {
  const auto fits = [](int side) { return side >= kMinFrameSidePx && side <= kMaxFrameSidePx; };
  if (frame.data != nullptr && fits(frame.height) && fits(frame.width)) return;
  throw std::invalid_argument("the frame is " + std::to_string(frame.width) + " x " +
                              std::to_string(frame.height) + " px, expected from " +
                              std::to_string(kMinFrameSidePx) + " to " +
                              std::to_string(kMaxFrameSidePx) + " px on each side");
}

FrameView with_forward_channels(FrameView frame) noexcept {
  if (frame.channel_stride_bytes >= 0) return frame;
  frame.data += 2 * frame.channel_stride_bytes;
  frame.channel_stride_bytes = -frame.channel_stride_bytes;
  frame.color = frame.color == ColorOrder::rgb ? ColorOrder::bgr : ColorOrder::rgb;
  return frame;
}

} // namespace fundus
