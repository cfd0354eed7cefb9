#include "fundus/spec.hpp"

#include <cmath>
#include <stdexcept>
#include <string>

namespace fundus {

namespace {

void require(bool holds, const char* field, const char* expected) {
  if (!holds) throw std::invalid_argument(std::string(field) + " is not " + expected);
}

bool within(int value, int low, int high) {
  return low <= value && value <= high;
}

} // namespace

void require_spec(const PreprocessSpec& spec) {
  require(within(spec.size, 32, 2048), "size", "32 to 2048");
  require(within(spec.crop_permille, 500, 2000), "crop_permille", "500 to 2000");
  require(within(spec.mask_permille, 500, 1000), "mask_permille", "500 to 1000");
  require(within(spec.illumination_window_px, 3, 2047) && spec.illumination_window_px % 2 == 1,
          "illumination_window_px", "an odd number from 3 to 2047");
  require(std::isfinite(spec.illumination_gain) && spec.illumination_gain >= 0.0F,
          "illumination_gain", "finite and at least 0");
  require(spec.illumination_constant >= 0.0F && spec.illumination_constant <= 255.0F,
          "illumination_constant", "0 to 255");
  for (const float value : spec.mean) require(std::isfinite(value), "mean", "finite");
  for (const float value : spec.std)
    require(std::isfinite(value) && value >= 0.0F, "std", "finite and at least 0");
}

} // namespace fundus
