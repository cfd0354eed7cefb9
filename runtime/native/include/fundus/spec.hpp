// The preprocessing contract as plain values; they mirror fundus_runtime.preprocess.PreprocessSpec,
// which is their one source of defaults and documentation.
#pragma once

#include <array>

namespace fundus {

enum class Illumination { subtract, divide, none };

struct PreprocessSpec {
  int size = 224;
  int crop_permille = 1000;
  Illumination illumination = Illumination::subtract;
  int illumination_window_px = 37;
  float illumination_gain = 2.0F;
  float illumination_constant = 128.0F;
  int mask_permille = 980;
  std::array<float, 3> mean = {0.485F, 0.456F, 0.406F}; // RGB, in units of full scale
  std::array<float, 3> std = {0.229F, 0.224F, 0.225F};
};

// Throws std::invalid_argument and names the field: out of the range that the Python spec allows.
void require_spec(const PreprocessSpec& spec);

} // namespace fundus
