// What the gates measure of a photograph: whole numbers from 96 x 96 cells of the disc. Equal to
// the Python reference (fundus_runtime.gates.reference) in every value; no allocation.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "fundus/field_of_view.hpp"
#include "fundus/frame.hpp"

namespace fundus {

inline constexpr int kGateCells = 96;
inline constexpr int kMaxGateRadiusPx = 1 << 24;

// Levels are counted in sixteenths, 0 to 4080; see the reference for the meaning of each figure.
struct GateReadings {
  int cells = 0;
  int red = 0;
  int green = 0;
  int blue = 0;
  int red_over_blue = 0;
  int shaded_permille = 0;
  int clipped_permille = 0;
  int detail = 0;
  int noise = 0;
};

// 96 x 96 cells, row by row. `levels` are RGB, nought outside; `inside` is 1 or 0.
struct GateCells {
  std::array<std::uint16_t, std::size_t{3} * kGateCells * kGateCells> levels;
  std::array<std::uint8_t, std::size_t{kGateCells} * kGateCells> inside;
};

// Reads at most 96 rows of the frame. `cells` is overwritten. Throws std::invalid_argument: a frame
// that is none, a disc without extent or beyond kMaxGateRadiusPx.
GateReadings measure_gates(const FrameView& frame, const FieldOfView& disc, GateCells& cells);

} // namespace fundus
