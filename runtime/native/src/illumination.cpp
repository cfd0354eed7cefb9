#include "illumination.hpp"

#include <algorithm>

namespace fundus {

namespace {

constexpr int kMaskPlane = 3;

} // namespace

LevelCorrector::LevelCorrector(const PreprocessSpec& spec)
    : spec_(spec),
      size_(static_cast<std::size_t>(spec.size)),
      reach_(std::min(static_cast<std::size_t>(spec.illumination_window_px / 2), size_)),
      planes_(3 * size_ * size_),
      nothing_(size_),
      columns_(4 * size_),
      running_(4 * (size_ + 2 * reach_ + 1)),
      values_(size_) {}

void LevelCorrector::correct(const std::uint8_t* image, const std::uint8_t* mask,
                             const Kernels& kernels, const TensorView& tensor) {
  split_planes(image, mask);
  const auto correct_row = spec_.illumination == Illumination::subtract ? kernels.subtract_mean
                           : spec_.illumination == Illumination::divide ? kernels.divide_by_mean
                                                                        : kernels.keep_levels;
  std::fill(columns_.begin(), columns_.end(), 0);
  for (int y = 0; y < spec_.size; ++y) {
    if (spec_.illumination != Illumination::none) {
      slide_to(y, mask, kernels);
      sum_along_row();
    }
    for (int channel = 0; channel < 3; ++channel) {
      const std::size_t at =
          (static_cast<std::size_t>(channel) * size_ + static_cast<std::size_t>(y)) * size_;
      const LevelRow row = level_row(channel, y, mask);
      if (tensor.type == TensorType::fp32) {
        correct_row(row, size_, static_cast<float*>(tensor.data) + at);
      } else {
        correct_row(row, size_, values_.data());
        kernels.to_half(values_.data(), size_, static_cast<std::uint16_t*>(tensor.data) + at);
      }
    }
  }
}

void LevelCorrector::split_planes(const std::uint8_t* image, const std::uint8_t* mask) {
  const std::size_t count = size_ * size_;
  std::uint8_t* const red = planes_.data();
  std::uint8_t* const green = red + count;
  std::uint8_t* const blue = green + count;
  for (std::size_t i = 0; i < count; ++i) {
    const auto keep = static_cast<std::uint8_t>(-static_cast<int>(mask[i]));
    red[i] = image[3 * i] & keep;
    green[i] = image[3 * i + 1] & keep;
    blue[i] = image[3 * i + 2] & keep;
  }
}

// The window's rows of output row `row`: one enters and one leaves.
void LevelCorrector::slide_to(int row, const std::uint8_t* mask, const Kernels& kernels) {
  const int reach = static_cast<int>(reach_), size = spec_.size;
  const auto slide = [&](int entering, int leaving) {
    for (int plane = 0; plane <= kMaskPlane; ++plane) {
      const std::uint8_t* const source =
          plane == kMaskPlane ? mask
                              : planes_.data() + static_cast<std::size_t>(plane) * size_ * size_;
      const auto row_of = [&](int y) {
        return y >= 0 && y < size ? source + static_cast<std::size_t>(y) * size_ : nothing_.data();
      };
      kernels.slide(row_of(entering), row_of(leaving), size_,
                    columns_.data() + static_cast<std::size_t>(plane) * size_);
    }
  };
  if (row == 0) {
    for (int y = 0; y < std::min(reach, size); ++y) slide(y, -1);
  }
  slide(row + reach, row - reach - 1);
}

// running[k] is the sum of the columns before k - reach, so that a window is one difference.
void LevelCorrector::sum_along_row() {
  const std::size_t length = size_ + 2 * reach_ + 1;
  std::int32_t red = 0, green = 0, blue = 0, count = 0;
  const std::int32_t* const columns = columns_.data();
  std::int32_t* const out = running_.data() + reach_ + 1;
  for (std::size_t x = 0; x < size_; ++x) {
    out[x] = red += columns[x];
    out[length + x] = green += columns[size_ + x];
    out[2 * length + x] = blue += columns[2 * size_ + x];
    out[3 * length + x] = count += columns[3 * size_ + x];
  }
  for (std::size_t plane = 0; plane <= kMaskPlane; ++plane) {
    std::int32_t* const tail = out + plane * length + size_;
    std::fill(tail, tail + reach_, tail[-1]);
  }
}

LevelRow LevelCorrector::level_row(int channel, int row, const std::uint8_t* mask) const {
  const auto plane = static_cast<std::size_t>(channel), y = static_cast<std::size_t>(row);
  const std::size_t length = size_ + 2 * reach_ + 1;
  const float std = spec_.std[plane];
  return {planes_.data() + (plane * size_ + y) * size_,
          mask + y * size_,
          running_.data() + plane * length,
          running_.data() + kMaskPlane * length,
          2 * reach_ + 1,
          spec_.illumination_gain,
          spec_.illumination_constant,
          1.0F / (255.0F * std),
          spec_.mean[plane] / std};
}

} // namespace fundus
