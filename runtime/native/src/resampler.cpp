#include "resampler.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>

namespace fundus {

namespace {

constexpr int kStagedRows = kMaxWholeRows + 2;

// Rows whose samples lie side by side, perhaps with a fourth byte between pixels, are summed where
// they are; others are first gathered into packed rows.
bool is_interleaved(const FrameView& frame) {
  return frame.channel_stride_bytes == 1 &&
         (frame.pixel_stride_bytes == 3 || frame.pixel_stride_bytes == 4);
}

} // namespace

// What of the frame the box covers, and how its columns lie in the row sums.
struct Resampler::Crop {
  const FrameView& frame;
  const Kernels& kernels;
  int top, left;             // of the box
  int first_row, last_row;   // of the frame, inside the box, both included
  int first_column, columns; // likewise
  AreaAxis down, across;
  bool interleaved;
  std::size_t step;    // samples from pixel to pixel in the row sums
  std::size_t samples; // of a row
};

void Resampler::reserve(const FrameView& frame, int size) {
  const auto width = static_cast<std::size_t>(frame.width), side = static_cast<std::size_t>(size);
  sums_.reserve(4 * width);
  if (!is_interleaved(frame)) staged_.reserve(3 * width * kStagedRows);
  small_.reserve(3 * side + 1);
  large_.reserve(3 * side + 1);
  columns_.reserve(side);
}

void Resampler::resample(const FrameView& frame, const CropBox& box, int size, int begin, int end,
                         const Kernels& kernels, std::uint8_t* image) {
  reserve(frame, size);
  Crop crop{frame, kernels, box.top_px, box.left_px, 0, 0, 0, 0, {}, {}, false, 3, 0};
  crop.first_row = std::max(box.top_px, 0);
  crop.last_row = std::min(box.bottom_px, frame.height) - 1;
  crop.first_column = std::max(box.left_px, 0);
  crop.columns = std::min(box.right_px, frame.width) - crop.first_column;
  crop.down = area_axis(box.height_px(), size);
  crop.across = area_axis(box.width_px(), size);
  crop.interleaved = is_interleaved(frame);
  if (crop.interleaved) crop.step = static_cast<std::size_t>(frame.pixel_stride_bytes);
  crop.samples = crop.step * (static_cast<std::size_t>(crop.columns) - 1) + 3;

  const auto side = static_cast<std::size_t>(size);
  sums_.resize(crop.samples + 1);
  columns_.resize(side);
  place_columns(crop, size);
  const ColumnTaps taps{columns_.data(), side, crop.step, crop.across.unit,
                        frame.color == ColorOrder::bgr};
  const double total = static_cast<double>(crop.down.total) * crop.across.total;
  const bool half_up = rounds_half_up(crop.down, crop.across);
  const bool small = 255.0 * total <= std::numeric_limits<std::int32_t>::max();
  small_.resize(3 * side + 1);
  large_.resize(3 * side + 1);
  for (int y = begin; y < end; ++y) {
    std::uint8_t* const row = image + 3 * side * static_cast<std::size_t>(y);
    sum_rows(crop, area_tap(crop.down, y));
    if (small) {
      kernels.sum_columns_small(taps, sums_.data(), small_.data());
      kernels.round_small(small_.data(), total, half_up, 3 * side, row);
    } else {
      kernels.sum_columns_large(taps, sums_.data(), large_.data());
      kernels.round_large(large_.data(), total, half_up, 3 * side, row);
    }
  }
}

// The samples of a frame row from the crop's first column on.
const std::uint8_t* Resampler::row_at(const Crop& crop, int row, int slot) {
  const FrameView& frame = crop.frame;
  const std::uint8_t* source =
      frame.data + row * frame.row_stride_bytes + crop.first_column * frame.pixel_stride_bytes;
  if (crop.interleaved) return source;
  std::uint8_t* const packed = staged_.data() + static_cast<std::size_t>(slot) * crop.samples;
  std::uint8_t* to = packed;
  for (int x = 0; x < crop.columns; ++x, source += frame.pixel_stride_bytes) {
    for (int c = 0; c < 3; ++c) *to++ = source[c * frame.channel_stride_bytes];
  }
  return packed;
}

// Down: the weighted rows of one output cell, those beyond the frame being black.
void Resampler::sum_rows(const Crop& crop, const AreaTap& tap) {
  const int first = crop.top + tap.first, last = crop.top + tap.last;
  const auto inside = [&crop](int row) { return row >= crop.first_row && row <= crop.last_row; };
  if (!crop.interleaved) staged_.resize(kStagedRows * crop.samples);

  const int end = std::min(last, crop.last_row + 1);
  int row = std::max(first + 1, crop.first_row);
  const bool first_counts = inside(first), last_counts = inside(last) && tap.last_weight != 0;
  std::array<const std::uint8_t*, kMaxWholeRows> whole{};
  WeightedRows rows{whole.data(), 0, crop.down.unit, nullptr, 0, nullptr, 0};
  rows.first = row_at(crop, first_counts ? first : crop.first_row, 0);
  rows.first_weight = first_counts ? tap.first_weight : 0;
  rows.last = last_counts ? row_at(crop, last, 1) : rows.first;
  rows.last_weight = last_counts ? tap.last_weight : 0;
  bool added = false;
  do {
    rows.whole_count = 0;
    for (; row < end && rows.whole_count < kMaxWholeRows; ++row, ++rows.whole_count)
      whole[static_cast<std::size_t>(rows.whole_count)] = row_at(crop, row, 2 + rows.whole_count);
    if (added) {
      crop.kernels.add_weighed_rows(rows, crop.samples, sums_.data());
    } else {
      crop.kernels.weigh_rows(rows, crop.samples, sums_.data());
    }
    added = true;
    rows.first_weight = rows.last_weight = 0;
  } while (row < end);
}

// Across: where in the row sums each output cell's columns lie, those beyond the frame left out.
void Resampler::place_columns(const Crop& crop, int size) {
  const int shift = crop.left - crop.first_column; // of the box against the row sums
  const auto step = static_cast<std::uint32_t>(crop.step);
  const auto inside = [&crop](int column) { return column >= 0 && column < crop.columns; };
  for (int x = 0; x < size; ++x) {
    const AreaTap tap = area_tap(crop.across, x);
    const int first = tap.first + shift, last = tap.last + shift;
    const int begin = std::max(first + 1, 0), end = std::min(last, crop.columns);
    ColumnTap& column = columns_[static_cast<std::size_t>(x)];
    column = {};
    if (begin < end) {
      column.whole = static_cast<std::uint32_t>(begin) * step;
      column.count = static_cast<std::uint32_t>(end - begin);
    }
    if (inside(first)) {
      column.first = static_cast<std::uint32_t>(first) * step;
      column.first_weight = tap.first_weight;
    }
    if (inside(last)) {
      column.last = static_cast<std::uint32_t>(last) * step;
      column.last_weight = tap.last_weight;
    }
  }
}

} // namespace fundus
