#include "fundus/side_score.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

namespace fundus {

namespace {

constexpr std::size_t kTiles = kSideTiles;
constexpr std::size_t kCellsOfTile = kGateCells / kTiles;
constexpr std::size_t kReach = 5;
// Sixteenths of a level, so that the noise of a picture without structure stays small.
constexpr double kFloor = 8.0;

template <typename Value>
using Tiles = std::array<std::array<Value, kTiles>, kTiles>;
using Sums = Tiles<std::int32_t>;

// Sums of every tile's cells; `step` apart.
template <typename Value>
Sums tiles_of(const Value* cells, std::size_t step) {
  Sums tiles{};
  constexpr std::size_t kSide = kGateCells;
  for (std::size_t y = 0; y < kSide; ++y)
    for (std::size_t x = 0; x < kSide; ++x)
      tiles[y / kCellsOfTile][x / kCellsOfTile] += cells[(y * kSide + x) * step];
  return tiles;
}

// Sums of the box of tiles about each.
Sums around(const Sums& tiles) {
  Sums across{}, boxes{};
  for (std::size_t y = 0; y < kTiles; ++y)
    for (std::size_t x = 0; x < kTiles; ++x)
      for (std::size_t k = x - std::min(x, kReach); k <= std::min(x + kReach, kTiles - 1); ++k)
        across[y][x] += tiles[y][k];
  for (std::size_t y = 0; y < kTiles; ++y)
    for (std::size_t k = y - std::min(y, kReach); k <= std::min(y + kReach, kTiles - 1); ++k)
      for (std::size_t x = 0; x < kTiles; ++x) boxes[y][x] += across[k][x];
  return boxes;
}

double mean_of(std::int32_t sum, std::int32_t count) {
  return static_cast<double>(sum) / std::max(count, 1);
}

// One colour's tiles without the mean around them, in units of their own spread.
Tiles<double> structure_of(const Sums& sums, const Sums& counts, const Sums& counts_around) {
  const Sums sums_around = around(sums);
  Tiles<double> structure{};
  double squares = 0.0;
  int held = 0;
  for (std::size_t y = 0; y < kTiles; ++y) {
    for (std::size_t x = 0; x < kTiles; ++x) {
      if (counts[y][x] == 0) continue;
      const double value =
          mean_of(sums[y][x], counts[y][x]) - mean_of(sums_around[y][x], counts_around[y][x]);
      structure[y][x] = value;
      squares += value * value;
      ++held;
    }
  }
  const double spread = std::sqrt(squares / std::max(held, 1)) + kFloor;
  for (auto& row : structure)
    for (double& value : row) value /= spread;
  return structure;
}

} // namespace

double side_score(const std::uint16_t* levels, const std::uint8_t* inside,
                  const double* weights) noexcept {
  const Sums counts = tiles_of(inside, 1), counts_around = around(counts);
  double score = 0.0;
  for (std::size_t channel = 0; channel < 2; ++channel) {
    const Tiles<double> structure =
        structure_of(tiles_of(levels + channel, 3), counts, counts_around);
    for (const auto& row : structure)
      for (std::size_t x = 0; x < kTiles / 2; ++x)
        score += (row[x] - row[kTiles - 1 - x]) * *weights++;
  }
  return score;
}

} // namespace fundus
