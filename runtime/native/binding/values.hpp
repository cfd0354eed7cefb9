// What the bindings of the CPU and of the CUDA preprocessing share: specs and orders by name, and
// an eye's geometry as Python's own values.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string_view.h>

#include <array>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

#include "fundus/preprocessor.hpp"

namespace fundus::binding {

template <class Value>
struct Named {
  std::string_view name;
  Value value;
};

template <class Value, std::size_t kCount>
Value value_of(const Named<Value> (&table)[kCount], std::string_view name, const char* what) {
  for (const auto& entry : table)
    if (entry.name == name) return entry.value;
  throw std::invalid_argument(std::string(what) + " is " + std::string(name));
}

inline constexpr Named<Illumination> kIlluminations[] = {
    {"subtract", Illumination::subtract},
    {"divide", Illumination::divide},
    {"none", Illumination::none},
};
inline constexpr Named<ColorOrder> kColors[] = {
    {"rgb", ColorOrder::rgb},
    {"bgr", ColorOrder::bgr},
};

inline void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

inline nanobind::object text(std::string_view value) {
  return nanobind::str(value.data(), value.size());
}

// (reason, detail, field of view, box); an empty reason where the eye was prepared.
inline nanobind::tuple tuple_of(const EyeGeometry& eye) {
  const FieldOfView& field = eye.field;
  return nanobind::make_tuple(
      text(eye.refusal.reason), text(eye.refusal.detail),
      nanobind::make_tuple(field.center_x_px, field.center_y_px, field.radius_x_px,
                           field.radius_y_px, field.rim_permille, field.visible_permille),
      nanobind::make_tuple(eye.box.left_px, eye.box.top_px, eye.box.right_px, eye.box.bottom_px));
}

inline PreprocessSpec spec_of(int size, int crop_permille, std::string_view illumination,
                              int illumination_window_px, double illumination_gain,
                              double illumination_constant, int mask_permille,
                              std::array<double, 3> mean, std::array<double, 3> std) {
  PreprocessSpec spec;
  spec.size = size;
  spec.crop_permille = crop_permille;
  spec.illumination = value_of(kIlluminations, illumination, "illumination");
  spec.illumination_window_px = illumination_window_px;
  spec.illumination_gain = static_cast<float>(illumination_gain);
  spec.illumination_constant = static_cast<float>(illumination_constant);
  spec.mask_permille = mask_permille;
  for (std::size_t c = 0; c < 3; ++c) {
    spec.mean[c] = static_cast<float>(mean[c]);
    spec.std[c] = static_cast<float>(std[c]);
  }
  return spec;
}

} // namespace fundus::binding
