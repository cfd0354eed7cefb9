// What is cropped, what the mask keeps, and which frame pixels each output pixel is the mean of: in
// whole numbers, shared by every implementation on the host and on a GPU.
#pragma once

#include <cstdint>

#include "fundus/field_of_view.hpp"
#include "fundus/spec.hpp"

namespace fundus {

// Half-open box in frame pixels; it may reach beyond the frame on any side.
struct CropBox {
  int left_px = 0;
  int top_px = 0;
  int right_px = 0;
  int bottom_px = 0;
  int width_px() const noexcept { return right_px - left_px; }
  int height_px() const noexcept { return bottom_px - top_px; }
};

// The disc's bounding box, scaled by crop_permille about the disc's centre.
CropBox crop_box(const FieldOfView& disc, const PreprocessSpec& spec) noexcept;

// size x size bytes, 1 where the image shows the fundus: the disc's inscribed circle, without the
// output pixels that draw on anything beyond the frame.
void fill_mask(const CropBox& box, int frame_height, int frame_width, const PreprocessSpec& spec,
               std::uint8_t* mask) noexcept;

// The sources of one output cell along one axis, in source pixels from the box's start. Their
// weighted sum, divided by AreaAxis::total, is the mean over the cell.
struct AreaTap {
  int first = 0;                  // source pixel that the cell begins in
  int last = 0;                   // source pixel that it ends in; equal to first in an enlargement
  std::uint32_t first_weight = 0; // of the first one
  std::uint32_t last_weight = 0;  // of the last one; 0 where it is the first one
};

// One axis of the area resampling. Source pixels are `unit` long and output cells `total`, which
// are box side / size in lowest terms, so that all weights are whole numbers.
struct AreaAxis {
  std::uint32_t unit = 1;  // weight of a source pixel that lies whole in the cell
  std::uint32_t total = 1; // sum of a cell's weights
};

AreaAxis area_axis(int length, int size) noexcept;
AreaTap area_tap(const AreaAxis& axis, int index) noexcept;

// An output level is sum / (rows.total * columns.total), rounded half to even; but half up where
// both axes shrink exactly 2 to 1, because OpenCV's area resampling does so there.
bool rounds_half_up(const AreaAxis& rows, const AreaAxis& columns) noexcept;

} // namespace fundus
