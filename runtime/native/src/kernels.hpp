// The inner loops, compiled once per vector instruction set and chosen at run time. Every set gives
// the same bits: whole numbers, or IEEE operations in the same order without contraction.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fundus/preprocessor.hpp"

namespace fundus {

// Rows of 8-bit samples that make one row of sums:
// unit * (whole[0] + ... + whole[count - 1]) + first_weight * first + last_weight * last.
struct WeightedRows {
  const std::uint8_t* const* whole;
  int whole_count; // at most kMaxWholeRows
  std::uint32_t unit;
  const std::uint8_t* first; // never null; its weight may be 0
  std::uint32_t first_weight;
  const std::uint8_t* last;
  std::uint32_t last_weight;
};

inline constexpr int kMaxWholeRows = 8;

// One output pixel's part of a row of sums, whose samples lie `step` apart:
// unit * (sums[whole] + ... + sums[whole + (count - 1) * step])
//   + first_weight * sums[first] + last_weight * sums[last], and the two samples after each.
struct ColumnTap {
  std::uint32_t whole;
  std::uint32_t count;
  std::uint32_t first;
  std::uint32_t first_weight;
  std::uint32_t last;
  std::uint32_t last_weight;
};

struct ColumnTaps {
  const ColumnTap* taps;
  std::size_t count;
  std::size_t step;
  std::uint32_t unit;
  bool reversed; // the third sample first
};

// One row of the illumination correction, in one plane. `sums` and `counts` are running sums along
// the row, so that the window of pixel x holds sums[x + window] - sums[x].
struct LevelRow {
  const std::uint8_t* levels; // 0 outside the mask
  const std::uint8_t* mask;   // 1 or 0
  const std::int32_t* sums;
  const std::int32_t* counts;
  std::size_t window;
  float gain;
  float constant;
  float scale;  // of the normalisation
  float offset; // likewise
};

struct Kernels {
  // sums[i] of WeightedRows, or added to what is there.
  void (*weigh_rows)(const WeightedRows& rows, std::size_t count, std::uint32_t* sums);
  void (*add_weighed_rows)(const WeightedRows& rows, std::size_t count, std::uint32_t* sums);
  // Three totals a tap. Both arrays have one more element, which is read or written but means
  // nothing: four lanes are faster than three. The first needs all totals to be below 2^31.
  void (*sum_columns_small)(const ColumnTaps& taps, const std::uint32_t* sums,
                            std::int32_t* totals);
  void (*sum_columns_large)(const ColumnTaps& taps, const std::uint32_t* sums, double* totals);
  // sum / total, rounded half to even, or half up. Sums below 2^31, and of any size as doubles.
  void (*round_small)(const std::int32_t* sums, double total, bool half_up, std::size_t count,
                      std::uint8_t* levels);
  void (*round_large)(const double* sums, double total, bool half_up, std::size_t count,
                      std::uint8_t* levels);
  // sums[i] += entering[i] - leaving[i]
  void (*slide)(const std::uint8_t* entering, const std::uint8_t* leaving, std::size_t count,
                std::int32_t* sums);
  void (*subtract_mean)(const LevelRow& row, std::size_t count, float* values);
  void (*divide_by_mean)(const LevelRow& row, std::size_t count, float* values);
  void (*keep_levels)(const LevelRow& row, std::size_t count, float* values);
  // How many points lie within the tolerance of the circle.
  int (*count_on_circle)(const double* px, const double* py, std::size_t count, double x, double y,
                         double radius, double tolerance);
  // Rounded to nearest even, with infinities beyond the range.
  void (*to_half)(const float* values, std::size_t count, std::uint16_t* halves);
};

// Null where this build or this processor lacks them.
const Kernels* kernels_of(KernelSet set) noexcept;

extern const Kernels kBaselineKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;

} // namespace fundus
