// On which side the optic disc lies: a linear classifier on 16 x 16 tiles. Equal to the Python
// reference (fundus_runtime.gates.laterality) but for the order of two sums.
#pragma once

#include <cstddef>

#include "fundus/gate_figures.hpp"

namespace fundus {

inline constexpr std::size_t kSideTiles = 16;
// Red and green of the left half of the tiles; the right half is their mirror image.
inline constexpr std::size_t kSideWeights = 2 * kSideTiles * kSideTiles / 2;

// Log odds of a left eye; `weights` are kSideWeights. No allocation.
double side_score(const std::uint16_t* levels, const std::uint8_t* inside,
                  const double* weights) noexcept;

} // namespace fundus
