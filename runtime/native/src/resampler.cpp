#include "resampler.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <type_traits>

namespace fundus {

namespace {

constexpr int kStagedRows = 32;

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
  small_.reserve(3 * side);
  large_.reserve(3 * side);
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
  sums_.resize(crop.samples);
  columns_.resize(side);
  for (int x = 0; x < size; ++x) columns_[static_cast<std::size_t>(x)] = area_tap(crop.across, x);
  const double total = static_cast<double>(crop.down.total) * crop.across.total;
  const bool half_up = rounds_half_up(crop.down, crop.across);
  const bool small = 255.0 * total <= std::numeric_limits<std::int32_t>::max();
  small_.resize(3 * side);
  large_.resize(3 * side);
  for (int y = begin; y < end; ++y) {
    std::uint8_t* const row = image + 3 * side * static_cast<std::size_t>(y);
    sum_rows(crop, area_tap(crop.down, y));
    if (small) {
      sum_columns(crop, small_.data());
      kernels.round_small(small_.data(), total, half_up, 3 * side, row);
    } else {
      sum_columns(crop, large_.data());
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
  const int most = crop.interleaved ? kMaxWholeRows : kStagedRows - 2;
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
    for (; row < end && rows.whole_count < most; ++row, ++rows.whole_count)
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

// Across: the weighted sums of the row, in RGB.
template <class Sum>
void Resampler::sum_columns(const Crop& crop, Sum* totals) const {
  using Whole = std::conditional_t<sizeof(Sum) == 4, std::uint32_t, std::uint64_t>;
  const int shift = crop.left - crop.first_column; // of the box against the row sums
  const bool reversed = crop.frame.color == ColorOrder::bgr;
  const auto at = [&](int column) {
    return sums_.data() + static_cast<std::size_t>(column) * crop.step;
  };
  for (const AreaTap& tap : columns_) {
    const int first = tap.first + shift, last = tap.last + shift;
    Whole a = 0, b = 0, c = 0;
    const int begin = std::max(first + 1, 0), end = std::min(last, crop.columns);
    if (begin < end) {
      const std::uint32_t* sum = at(begin);
      for (int x = begin; x < end; ++x, sum += crop.step) {
        a += sum[0];
        b += sum[1];
        c += sum[2];
      }
    }
    a *= crop.across.unit;
    b *= crop.across.unit;
    c *= crop.across.unit;
    const auto add = [&](int column, Whole weight) {
      if (weight == 0 || column < 0 || column >= crop.columns) return;
      const std::uint32_t* const sum = at(column);
      a += weight * sum[0];
      b += weight * sum[1];
      c += weight * sum[2];
    };
    add(first, tap.first_weight);
    add(last, tap.last_weight);
    totals[0] = static_cast<Sum>(reversed ? c : a);
    totals[1] = static_cast<Sum>(b);
    totals[2] = static_cast<Sum>(reversed ? a : c);
    totals += 3;
  }
}

} // namespace fundus
