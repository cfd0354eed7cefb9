// Drawn fundi and a check that counts failures, for the tests and the fuzz driver.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "fundus/gate_figures.hpp"
#include "fundus/preprocessor.hpp"

namespace drawn {

inline int failures = 0;

inline void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "FAILED: %s\n", what);
  ++failures;
}

// The same numbers from every standard library, which std::uniform_int_distribution does not give.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  int from(int low, int high) {
    return low + static_cast<int>(engine_() % static_cast<std::uint64_t>(high - low + 1));
  }
  bool one_in(int count) { return from(1, count) == 1; }

 private:
  std::mt19937_64 engine_;
};

struct Disc {
  double x, y, radius_x, radius_y;
};

using Pixels = std::vector<std::uint8_t>; // packed, height x width x 3

// Noise of some levels about a colour inside the disc, nearly black outside.
inline Pixels fundus(int height, int width, const Disc& disc, Random& random, int noise = 20) {
  Pixels pixels(static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * 3);
  std::size_t at = 0;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const double dx = (x + 0.5 - disc.x) / disc.radius_x, dy = (y + 0.5 - disc.y) / disc.radius_y;
      const bool inside = dx * dx + dy * dy <= 1.0;
      for (int c = 0; c < 3; ++c) {
        const int level = inside ? 200 - 60 * c + random.from(-noise, noise) : random.from(0, 4);
        pixels[at++] = static_cast<std::uint8_t>(level);
      }
    }
  }
  return pixels;
}

inline fundus::FrameView packed(const Pixels& pixels, int height, int width) {
  fundus::FrameView view;
  view.data = pixels.data();
  view.height = height;
  view.width = width;
  view.row_stride_bytes = 3 * static_cast<std::ptrdiff_t>(width);
  return view;
}

// What a preprocessor made of a frame, in memory of exactly the size that it may write.
struct Eye {
  fundus::EyeGeometry geometry;
  std::vector<std::uint8_t> image, mask;
  std::vector<float> tensor;
};

inline Eye prepare(fundus::Preprocessor& preprocessor, const fundus::FrameView& frame) {
  const auto side = static_cast<std::size_t>(preprocessor.spec().size);
  Eye eye{{}, Pixels(3 * side * side), Pixels(side * side), std::vector<float>(3 * side * side)};
  eye.geometry = preprocessor.prepare(frame, {eye.image.data(), eye.mask.data()},
                                      {eye.tensor.data(), fundus::TensorType::fp32});
  return eye;
}

inline bool same(const Eye& a, const Eye& b) {
  const fundus::FieldOfView &f = a.geometry.field, &g = b.geometry.field;
  return a.geometry.refusal.reason == b.geometry.refusal.reason &&
         a.geometry.refusal.detail == b.geometry.refusal.detail && f.center_x_px == g.center_x_px &&
         f.center_y_px == g.center_y_px && f.radius_x_px == g.radius_x_px &&
         f.radius_y_px == g.radius_y_px && f.rim_permille == g.rim_permille &&
         f.visible_permille == g.visible_permille && a.image == b.image && a.mask == b.mask &&
         a.tensor == b.tensor;
}

inline bool same(const fundus::GateReadings& a, const fundus::GateReadings& b) {
  return a.cells == b.cells && a.red == b.red && a.green == b.green && a.blue == b.blue &&
         a.red_over_blue == b.red_over_blue && a.shaded_permille == b.shaded_permille &&
         a.clipped_permille == b.clipped_permille && a.detail == b.detail && a.noise == b.noise;
}

} // namespace drawn
