#include "fundus/fine_structure.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "fundus/gate_figures.hpp"

namespace fundus {

namespace {

constexpr std::size_t kSide = kGateCells;
constexpr std::size_t kWindow = 5; // smaller than the optic disc, larger than a vessel
constexpr std::size_t kReach = kWindow / 2;
constexpr double kClip = 3.0; // in medians

using Plane = std::array<std::array<std::int32_t, kSide>, kSide>;

// Sums of the boxes about the cells; beyond the border there is nothing.
template <typename Value>
void sum_boxes(const Value* cells, Plane& boxes) {
  std::array<std::array<std::int32_t, kSide>, kSide + 2 * kReach> across{};
  for (std::size_t y = 0; y < kSide; ++y) {
    std::array<std::int32_t, kSide + 2 * kReach> row{};
    std::copy(cells + y * kSide, cells + (y + 1) * kSide, row.begin() + kReach);
    for (std::size_t x = 0; x < kSide; ++x) {
      std::int32_t sum = 0;
      for (std::size_t k = 0; k < kWindow; ++k) sum += row[x + k];
      across[y + kReach][x] = sum;
    }
  }
  for (std::size_t y = 0; y < kSide; ++y) {
    for (std::size_t x = 0; x < kSide; ++x) {
      std::int32_t sum = 0;
      for (std::size_t k = 0; k < kWindow; ++k) sum += across[y + k][x];
      boxes[y][x] = sum;
    }
  }
}

double median_magnitude(const double* values, std::size_t count) {
  std::array<double, kSide * kSide> magnitudes;
  std::transform(values, values + count, magnitudes.begin(), [](double v) { return std::fabs(v); });
  const auto begin = magnitudes.begin();
  const auto middle = begin + static_cast<std::ptrdiff_t>(count / 2);
  std::nth_element(begin, middle, begin + static_cast<std::ptrdiff_t>(count));
  if (count % 2 != 0) return *middle;
  return (*std::max_element(begin, middle) + *middle) / 2;
}

} // namespace

void fine_structure(const std::uint16_t* green, const std::uint8_t* inside,
                    const std::uint8_t* cells, double* values) noexcept {
  Plane sums, held;
  sum_boxes(green, sums);
  sum_boxes(inside, held);
  std::size_t count = 0;
  for (std::size_t y = 0; y < kSide; ++y) {
    for (std::size_t x = 0; x < kSide; ++x) {
      const std::size_t k = y * kSide + x;
      if (cells[k] != 0)
        values[count++] = green[k] - static_cast<double>(sums[y][x]) / std::max(held[y][x], 1);
    }
  }
  if (count == 0) return;
  const double bound = kClip * median_magnitude(values, count);
  for (std::size_t k = 0; k < count; ++k) values[k] = std::clamp(values[k], -bound, bound);
  const double mean = std::accumulate(values, values + count, 0.0) / static_cast<double>(count);
  for (std::size_t k = 0; k < count; ++k) values[k] -= mean;
}

} // namespace fundus
