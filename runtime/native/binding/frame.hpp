// A NumPy frame as the core's view of it.
#pragma once

#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fundus/frame.hpp"
#include "values.hpp"

namespace fundus::binding {

using Frame = nanobind::ndarray<const std::uint8_t, nanobind::ndim<3>, nanobind::device::cpu>;

inline FrameView view_of(const Frame& frame, std::string_view color) {
  require(frame.shape(2) == 3, "a frame has three channels");
  require(frame.shape(0) <= kMaxFrameSidePx && frame.shape(1) <= kMaxFrameSidePx,
          "a side of the frame is out of range");
  FrameView view;
  view.data = frame.data();
  view.height = static_cast<int>(frame.shape(0));
  view.width = static_cast<int>(frame.shape(1));
  view.row_stride_bytes = static_cast<std::ptrdiff_t>(frame.stride(0));
  view.pixel_stride_bytes = static_cast<std::ptrdiff_t>(frame.stride(1));
  view.channel_stride_bytes = static_cast<std::ptrdiff_t>(frame.stride(2));
  view.color = value_of(kColors, color, "color");
  return view;
}

} // namespace fundus::binding
