// The area resampling of a crop to size x size, each frame row read once from memory.
#pragma once

#include <cstdint>
#include <vector>

#include "fundus/frame.hpp"
#include "fundus/geometry.hpp"
#include "kernels.hpp"

namespace fundus {

// One thread's part of it; keeps its memory.
class Resampler {
 public:
  // Writes rows begin to end - 1 of `image`, size x size x 3 RGB. Channels must run forward.
  void resample(const FrameView& frame, const CropBox& box, int size, int begin, int end,
                const Kernels& kernels, std::uint8_t* image);

  // So that resample() allocates nothing for frames of this width.
  void reserve(const FrameView& frame, int size);

 private:
  struct Crop;
  void sum_rows(const Crop& crop, const AreaTap& tap);
  void place_columns(const Crop& crop, int size);
  const std::uint8_t* row_at(const Crop& crop, int row, int slot);

  std::vector<std::uint8_t> staged_;
  std::vector<std::uint32_t> sums_;
  std::vector<std::int32_t> small_;
  std::vector<double> large_;
  std::vector<ColumnTap> columns_;
};

} // namespace fundus
