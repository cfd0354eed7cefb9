// The loops of kernels.hpp, for a file that defines FUNDUS_KERNELS as the name of its set. They are
// plain, so that the compiler vectorises them for the instruction set that the file is built with.
// Everything has internal linkage and nothing of the standard library is called: code built for a
// larger instruction set must never be what another file's inline functions resolve to.
#pragma once

#include "kernels.hpp"

namespace fundus {

namespace {

// With the number of rows known to the compiler, the sums of one pass stay in registers.
template <bool kAdd, std::size_t kWhole>
void weigh_n(const WeightedRows& rows, std::size_t begin, std::size_t end,
             std::uint32_t* __restrict sums) {
  const std::uint8_t* __restrict whole[kWhole + 1];
  for (std::size_t k = 0; k < kWhole; ++k) whole[k] = rows.whole[k];
  const std::uint8_t* const __restrict first = rows.first;
  const std::uint8_t* const __restrict last = rows.last;
  const std::uint32_t unit = rows.unit;
  const std::uint32_t first_weight = rows.first_weight, last_weight = rows.last_weight;
  for (std::size_t i = begin; i < end; ++i) {
    std::uint16_t sum = 0;
    for (std::size_t k = 0; k < kWhole; ++k) sum = static_cast<std::uint16_t>(sum + whole[k][i]);
    const std::uint32_t weighted = unit * sum + first_weight * first[i] + last_weight * last[i];
    sums[i] = kAdd ? sums[i] + weighted : weighted;
  }
}

inline std::uintptr_t address_of(const std::uint8_t* at) {
  return reinterpret_cast<std::uintptr_t>(at);
}

// The next output row's rows lie as far from these as the last from the first: asked for now, they
// are in the cache then.
inline void ask_for_next(const WeightedRows& rows, std::size_t begin, std::size_t end) {
  constexpr std::size_t kCacheLine = 64;
  const std::uintptr_t ahead = address_of(rows.last) - address_of(rows.first);
  for (int k = 0; k < rows.whole_count; ++k)
    for (std::size_t i = begin; i < end; i += kCacheLine)
      __builtin_prefetch(reinterpret_cast<const void*>(address_of(rows.whole[k] + i) + ahead), 0,
                         2);
}

template <bool kAdd, std::size_t kWhole>
void weigh_blocks(const WeightedRows& rows, std::size_t count, std::uint32_t* sums) {
  constexpr std::size_t kBlock = 256;
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t end = count - begin < kBlock ? count : begin + kBlock;
    ask_for_next(rows, begin, end);
    weigh_n<kAdd, kWhole>(rows, begin, end, sums);
  }
}

template <bool kAdd>
void weigh(const WeightedRows& rows, std::size_t count, std::uint32_t* sums) {
  switch (rows.whole_count) {
    case 0:
      return weigh_blocks<kAdd, 0>(rows, count, sums);
    case 1:
      return weigh_blocks<kAdd, 1>(rows, count, sums);
    case 2:
      return weigh_blocks<kAdd, 2>(rows, count, sums);
    case 3:
      return weigh_blocks<kAdd, 3>(rows, count, sums);
    case 4:
      return weigh_blocks<kAdd, 4>(rows, count, sums);
    case 5:
      return weigh_blocks<kAdd, 5>(rows, count, sums);
    case 6:
      return weigh_blocks<kAdd, 6>(rows, count, sums);
    case 7:
      return weigh_blocks<kAdd, 7>(rows, count, sums);
    default:
      return weigh_blocks<kAdd, 8>(rows, count, sums);
  }
}

// Three samples and the one after them. A vector of GCC and Clang, because in a plain loop over few
// and ever other numbers of columns they gather lanes across columns, which is slower.
using Lanes __attribute__((vector_size(16))) = std::uint32_t;

inline Lanes lanes_at(const std::uint32_t* sums) {
  Lanes lanes;
  __builtin_memcpy(&lanes, sums, sizeof lanes);
  return lanes;
}

void sum_columns_small(const ColumnTaps& taps, const std::uint32_t* __restrict sums,
                       std::int32_t* __restrict totals) {
  const std::size_t step = taps.step;
  for (std::size_t i = 0; i < taps.count; ++i, totals += 3) {
    const ColumnTap& tap = taps.taps[i];
    const std::uint32_t* whole = sums + tap.whole;
    std::uint32_t left = tap.count;
    Lanes lanes = {};
    for (; left >= 4; left -= 4, whole += 4 * step) {
      lanes += (lanes_at(whole) + lanes_at(whole + step)) +
               (lanes_at(whole + 2 * step) + lanes_at(whole + 3 * step));
    }
    if (left >= 2) {
      lanes += lanes_at(whole) + lanes_at(whole + step);
      left -= 2;
      whole += 2 * step;
    }
    // Whether one is left changes from tap to tap: a product costs less than a wrong guess.
    lanes += lanes_at(left != 0 ? whole : sums) * left;
    lanes = lanes * taps.unit + lanes_at(sums + tap.first) * tap.first_weight +
            lanes_at(sums + tap.last) * tap.last_weight;
    if (taps.reversed) lanes = Lanes{lanes[2], lanes[1], lanes[0], lanes[3]};
    __builtin_memcpy(totals, &lanes, sizeof lanes);
  }
}

void sum_columns_large(const ColumnTaps& taps, const std::uint32_t* __restrict sums,
                       double* __restrict totals) {
  constexpr int kLanes = 4;
  for (std::size_t i = 0; i < taps.count; ++i, totals += 3) {
    const ColumnTap tap = taps.taps[i];
    std::uint64_t lanes[kLanes] = {};
    const std::uint32_t* whole = sums + tap.whole;
    for (std::uint32_t k = 0; k < tap.count; ++k, whole += taps.step)
      for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += whole[lane];
    const std::uint32_t* const first = sums + tap.first;
    const std::uint32_t* const last = sums + tap.last;
    for (int lane = 0; lane < kLanes; ++lane)
      lanes[lane] = lanes[lane] * taps.unit + std::uint64_t{tap.first_weight} * first[lane] +
                    std::uint64_t{tap.last_weight} * last[lane];
    if (taps.reversed) {
      for (int lane = 0; lane < 3; ++lane) totals[lane] = static_cast<double>(lanes[2 - lane]);
    } else {
      for (int lane = 0; lane < kLanes; ++lane) totals[lane] = static_cast<double>(lanes[lane]);
    }
  }
}

// Division is correctly rounded and an exact half is representable, so that no quotient beside a
// half can reach or cross it; adding 2^52 then rounds half to even.
inline std::int32_t round_quotient(double sum, double total) {
  constexpr double kWhole = 4503599627370496.0; // 2^52
  const double rounded = (sum / total + kWhole) - kWhole;
  return static_cast<std::int32_t>(rounded);
}

inline std::int32_t round_quotient_up(double sum, double total) {
  return static_cast<std::int32_t>(sum / total + 0.5);
}

template <class Sum>
void round_sums(const Sum* __restrict sums, double total, bool half_up, std::size_t count,
                std::uint8_t* __restrict levels) {
  if (half_up) {
    for (std::size_t i = 0; i < count; ++i)
      levels[i] = static_cast<std::uint8_t>(round_quotient_up(static_cast<double>(sums[i]), total));
    return;
  }
  for (std::size_t i = 0; i < count; ++i)
    levels[i] = static_cast<std::uint8_t>(round_quotient(static_cast<double>(sums[i]), total));
}

void slide(const std::uint8_t* __restrict entering, const std::uint8_t* __restrict leaving,
           std::size_t count, std::int32_t* __restrict sums) {
  for (std::size_t i = 0; i < count; ++i)
    sums[i] += static_cast<std::int32_t>(entering[i]) - static_cast<std::int32_t>(leaving[i]);
}

inline float mean_at(const LevelRow& row, std::size_t x) {
  const std::int32_t count = row.counts[x + row.window] - row.counts[x];
  const auto sum = static_cast<float>(row.sums[x + row.window] - row.sums[x]);
  return sum / static_cast<float>(count > 1 ? count : 1);
}

inline float clip(float level) {
  const float above = level > 0.0F ? level : 0.0F;
  return above < 255.0F ? above : 255.0F;
}

inline float normalised(float level, const LevelRow& row, std::size_t x) {
  const float value = level * row.scale - row.offset;
  return row.mask[x] != 0 ? value : 0.0F;
}

void subtract_mean(const LevelRow& row, std::size_t count, float* __restrict values) {
  for (std::size_t x = 0; x < count; ++x) {
    const float level = (static_cast<float>(row.levels[x]) - mean_at(row, x)) * row.gain;
    values[x] = normalised(clip(level + row.constant), row, x);
  }
}

void divide_by_mean(const LevelRow& row, std::size_t count, float* __restrict values) {
  const float factor = row.gain * row.constant;
  for (std::size_t x = 0; x < count; ++x) {
    const float mean = mean_at(row, x);
    const float level = static_cast<float>(row.levels[x]) / (mean > 1.0F ? mean : 1.0F);
    values[x] = normalised(clip(level * factor), row, x);
  }
}

void keep_levels(const LevelRow& row, std::size_t count, float* __restrict values) {
  for (std::size_t x = 0; x < count; ++x)
    values[x] = normalised(static_cast<float>(row.levels[x]), row, x);
}

int count_on_circle(const double* __restrict px, const double* __restrict py, std::size_t count,
                    double x, double y, double radius, double tolerance) {
  std::int64_t found = 0; // as wide as a double, which keeps the loop in one vector width
  for (std::size_t i = 0; i < count; ++i) {
    const double dx = px[i] - x, dy = py[i] - y;
    const double off = __builtin_fabs(__builtin_sqrt(dx * dx + dy * dy) - radius);
    found += off <= tolerance ? 1 : 0;
  }
  return static_cast<int>(found);
}

inline std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of(std::uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

void to_half(const float* __restrict values, std::size_t count, std::uint16_t* __restrict halves) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t bits = bits_of(values[i]);
    const std::uint32_t sign = (bits >> 16) & 0x8000U;
    const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
    // A normal half: the exponent moved, then half of what is cut off added, ties to even.
    const std::uint32_t normal =
        (magnitude - 0x38000000U + 0xFFFU + ((magnitude >> 13) & 1U)) >> 13;
    // A subnormal one: adding 0.5 leaves its units in the lowest bits, rounded by the addition.
    const std::uint32_t small = bits_of(float_of(magnitude) + 0.5F) - 0x3F000000U;
    const std::uint32_t beyond = magnitude > 0x7F800000U ? 0x7E00U : 0x7C00U; // NaN or infinity
    const std::uint32_t finite = magnitude < 0x38800000U ? small : normal;
    halves[i] = static_cast<std::uint16_t>(sign | (magnitude >= 0x477FF000U ? beyond : finite));
  }
}

} // namespace

extern const Kernels FUNDUS_KERNELS;
const Kernels FUNDUS_KERNELS = {
    weigh<false>,       weigh<true>, sum_columns_small, sum_columns_large, round_sums<std::int32_t>,
    round_sums<double>, slide,       subtract_mean,     divide_by_mean,    keep_levels,
    count_on_circle,    to_half,
};

} // namespace fundus
