#include "fundus/geometry.hpp"

#include <algorithm>
#include <numeric>

namespace fundus {

namespace {

// Whether an output cell draws on frame pixels alone, along one axis.
bool cell_in_frame(int index, int size, int start, int length, int limit) {
  const std::int64_t begin =
      static_cast<std::int64_t>(start) * size + static_cast<std::int64_t>(index) * length;
  return begin >= 0 && begin + length <= static_cast<std::int64_t>(limit) * size;
}

} // namespace

CropBox crop_box(const FieldOfView& disc, const PreprocessSpec& spec) noexcept {
  const auto scaled = [&spec](int radius_px) {
    return static_cast<int>((static_cast<std::int64_t>(radius_px) * spec.crop_permille + 500) /
                            1000);
  };
  const int half_width = scaled(disc.radius_x_px), half_height = scaled(disc.radius_y_px);
  return {disc.center_x_px - half_width, disc.center_y_px - half_height,
          disc.center_x_px + half_width, disc.center_y_px + half_height};
}

void fill_mask(const CropBox& box, int frame_height, int frame_width, const PreprocessSpec& spec,
               std::uint8_t* mask) noexcept {
  const int size = spec.size;
  // A pixel's centre is at (2 i + 1) / 2; in units of 1 / (2 S) of the box.
  const auto square = [&spec, size](int index) {
    const std::int64_t offset =
        static_cast<std::int64_t>(2 * index + 1 - size) * spec.crop_permille;
    return offset * offset;
  };
  const std::int64_t reach = static_cast<std::int64_t>(size) * spec.mask_permille;
  int first = 0, end = size;
  while (first < size && !cell_in_frame(first, size, box.left_px, box.width_px(), frame_width))
    ++first;
  while (end > first && !cell_in_frame(end - 1, size, box.left_px, box.width_px(), frame_width))
    --end;
  // The circle's part of a row widens down to the middle and narrows again.
  const int half = (size + 1) / 2;
  int margin = half;
  const auto outside = [&](int x, int y) { return square(x) + square(y) > reach * reach; };
  for (int y = 0; y < size; ++y) {
    while (margin > 0 && !outside(margin - 1, y)) --margin;
    while (margin < half && outside(margin, y)) ++margin;
    std::uint8_t* const row = mask + static_cast<std::ptrdiff_t>(y) * size;
    std::fill(row, row + size, std::uint8_t{0});
    const int begin = std::max(margin, first), close = std::min(size - margin, end);
    if (begin < close && cell_in_frame(y, size, box.top_px, box.height_px(), frame_height))
      std::fill(row + begin, row + close, std::uint8_t{1});
  }
}

AreaAxis area_axis(int length, int size) noexcept {
  const int common = std::gcd(length, size);
  return {static_cast<std::uint32_t>(size / common), static_cast<std::uint32_t>(length / common)};
}

AreaTap area_tap(const AreaAxis& axis, int index) noexcept {
  const std::uint64_t begin = static_cast<std::uint64_t>(index) * axis.total;
  const std::uint64_t end = begin + axis.total;
  AreaTap tap;
  tap.first = static_cast<int>(begin / axis.unit);
  tap.last = static_cast<int>((end - 1) / axis.unit);
  if (tap.first == tap.last) {
    tap.first_weight = axis.total;
    return tap;
  }
  tap.first_weight =
      static_cast<std::uint32_t>((static_cast<std::uint64_t>(tap.first) + 1) * axis.unit - begin);
  tap.last_weight =
      static_cast<std::uint32_t>(end - static_cast<std::uint64_t>(tap.last) * axis.unit);
  return tap;
}

bool rounds_half_up(const AreaAxis& rows, const AreaAxis& columns) noexcept {
  return rows.unit == 1 && rows.total == 2 && columns.unit == 1 && columns.total == 2;
}

} // namespace fundus
