// The loops of kernels.hpp, for a file that defines FUNDUS_KERNELS as the name of its set. They are
// plain, so that the compiler vectorises them for the instruction set that the file is built with.
// Everything has internal linkage and nothing of the standard library is called: code built for a
// larger instruction set must never be what another file's inline functions resolve to.
#pragma once

#include "kernels.hpp"

namespace fundus {

namespace {

constexpr std::size_t kBlock = 64; // samples at once: their sums stay in registers

// Count is a compile-time constant for whole blocks, which the compiler then unrolls.
template <bool kAdd>
inline void weigh_block(const WeightedRows& rows, std::size_t at, std::size_t count,
                        std::uint32_t* __restrict sums) {
  std::uint16_t whole[kBlock] = {};
  for (int k = 0; k < rows.whole_count; ++k) {
    const std::uint8_t* const __restrict row = rows.whole[k] + at;
    for (std::size_t i = 0; i < count; ++i)
      whole[i] = static_cast<std::uint16_t>(whole[i] + row[i]);
  }
  const std::uint8_t* const __restrict first = rows.first + at;
  const std::uint8_t* const __restrict last = rows.last + at;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t sum =
        rows.unit * whole[i] + rows.first_weight * first[i] + rows.last_weight * last[i];
    sums[at + i] = kAdd ? sums[at + i] + sum : sum;
  }
}

template <bool kAdd>
void weigh(const WeightedRows& rows, std::size_t count, std::uint32_t* sums) {
  std::size_t at = 0;
  for (; at + kBlock <= count; at += kBlock) weigh_block<kAdd>(rows, at, kBlock, sums);
  if (at < count) weigh_block<kAdd>(rows, at, count - at, sums);
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
    weigh<false>,       weigh<true>, round_sums<std::int32_t>,
    round_sums<double>, slide,       subtract_mean,
    divide_by_mean,     keep_levels, to_half,
};

} // namespace fundus
