// From the 8-bit image to the tensor: illumination correction inside the mask, normalisation,
// planes. FP32 operations in the order of the Python reference; box sums in whole numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "fundus/preprocessor.hpp"
#include "kernels.hpp"

namespace fundus {

class LevelCorrector {
 public:
  explicit LevelCorrector(const PreprocessSpec& spec);

  void correct(const std::uint8_t* image, const std::uint8_t* mask, const Kernels& kernels,
               const TensorView& tensor);

 private:
  void split_planes(const std::uint8_t* image, const std::uint8_t* mask);
  void slide_to(int row, const std::uint8_t* mask, const Kernels& kernels);
  void sum_along_row();
  LevelRow level_row(int channel, int row, const std::uint8_t* mask) const;

  PreprocessSpec spec_;
  std::size_t size_;
  std::size_t reach_;                // of the window on either side, at most the whole image
  std::vector<std::uint8_t> planes_; // red, green, blue; 0 outside the mask
  std::vector<std::uint8_t> nothing_;
  std::vector<std::int32_t> columns_; // sums over the window's rows: red, green, blue, mask
  std::vector<std::int32_t> running_; // along the row, padded by the reach on both sides
  std::vector<float> values_;
};

} // namespace fundus
