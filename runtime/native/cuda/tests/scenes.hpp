// Frames to compare implementations on: discs with texture, in every layout that a frame may have.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "fundus/frame.hpp"
#include "fundus/spec.hpp"

namespace fundus::cuda::scenes {

// How a frame's samples lie in memory. `lead` bytes come first, so that addresses are odd.
struct Layout {
  const char* name;
  int pixel_bytes; // from pixel to pixel in a row; 1 is planes
  int row_padding;
  int lead;
  bool upside_down;
  ColorOrder color;
};

inline constexpr Layout kLayouts[] = {
    {"packed RGB", 3, 0, 0, false, ColorOrder::rgb},
    {"packed BGR at an odd address, rows padded", 3, 5, 1, false, ColorOrder::bgr},
    {"RGBX", 4, 0, 0, false, ColorOrder::rgb},
    {"BGRX upside down, rows padded", 4, 12, 3, true, ColorOrder::bgr},
    {"packed RGB upside down, rows of whole words", 3, 64, 2, true, ColorOrder::rgb},
    {"planes", 1, 7, 0, false, ColorOrder::rgb},
};

// A disc of light on a dark surround. Centre and radii in thousandths of the frame's shorter side.
struct Disc {
  int height = 480;
  int width = 640;
  int center_x = 666;
  int center_y = 500;
  int radius_x = 460;
  int radius_y = 460;
};

// The memory holds exactly what the frame needs, so that a sanitizer sees any byte beyond.
struct Scene {
  std::vector<std::uint8_t> memory;
  FrameView frame;
};

inline std::size_t bytes_of(const Disc& disc, const Layout& layout) {
  const auto height = static_cast<std::size_t>(disc.height);
  const auto width = static_cast<std::size_t>(disc.width);
  const auto padding = static_cast<std::size_t>(layout.row_padding);
  const auto lead = static_cast<std::size_t>(layout.lead);
  if (layout.pixel_bytes == 1) return lead + 3 * height * (width + padding);
  const std::size_t row = width * static_cast<std::size_t>(layout.pixel_bytes) + padding;
  // the last pixel ends with its third byte
  return lead + (height - 1) * row + (width - 1) * static_cast<std::size_t>(layout.pixel_bytes) + 3;
}

inline FrameView view_of(std::uint8_t* memory, const Disc& disc, const Layout& layout) {
  FrameView frame;
  const std::ptrdiff_t row =
      static_cast<std::ptrdiff_t>(disc.width) * layout.pixel_bytes + layout.row_padding;
  frame.data = memory + layout.lead + (layout.upside_down ? (disc.height - 1) * row : 0);
  frame.height = disc.height;
  frame.width = disc.width;
  frame.row_stride_bytes = layout.upside_down ? -row : row;
  frame.pixel_stride_bytes = layout.pixel_bytes;
  frame.channel_stride_bytes = layout.pixel_bytes == 1 ? disc.height * row : 1;
  frame.color = layout.color;
  return frame;
}

inline bool in_disc(const Disc& disc, int row, int column) {
  const double side = disc.height < disc.width ? disc.height : disc.width;
  const double x = (column - side * disc.center_x / 1000) / (side * disc.radius_x / 1000);
  const double y = (row - side * disc.center_y / 1000) / (side * disc.radius_y / 1000);
  return x * x + y * y <= 1.0;
}

inline void paint(std::uint8_t* memory, const Disc& disc, const FrameView& frame, unsigned seed) {
  std::minstd_rand random(seed);
  for (int row = 0; row < disc.height; ++row) {
    for (int column = 0; column < disc.width; ++column) {
      const bool bright = in_disc(disc, row, column);
      for (int c = 0; c < 3; ++c) {
        const auto noise = static_cast<unsigned>(random() >> 8);
        const unsigned level =
            bright ? 70 + static_cast<unsigned>(20 * c) + noise % 140 : noise % 8;
        const std::ptrdiff_t offset = row * frame.row_stride_bytes +
                                      column * frame.pixel_stride_bytes +
                                      c * frame.channel_stride_bytes;
        memory[(frame.data - memory) + offset] =
            static_cast<std::uint8_t>(level > 255 ? 255 : level);
      }
    }
  }
}

inline Scene scene_of(const Disc& disc, const Layout& layout, unsigned seed) {
  Scene scene;
  scene.memory.resize(bytes_of(disc, layout));
  scene.frame = view_of(scene.memory.data(), disc, layout);
  paint(scene.memory.data(), disc, scene.frame, seed);
  return scene;
}

// Whole, cut by the camera on a side, squashed, small, large enough for several segments.
inline const std::vector<Disc>& discs() {
  static const std::vector<Disc> all = {
      {480, 640, 666, 500, 460, 460}, {481, 643, 500, 500, 560, 560},
      {300, 300, 520, 480, 590, 560}, {400, 400, 500, 500, 300, 400},
      {97, 131, 660, 500, 400, 400},  {900, 1203, 640, 500, 480, 480},
  };
  return all;
}

inline PreprocessSpec spec_of(int size, Illumination illumination, int window_px) {
  PreprocessSpec spec;
  spec.size = size;
  spec.illumination = illumination;
  spec.illumination_window_px = window_px;
  return spec;
}

// Enlarged and reduced, 2 to 1 too, windows inside and wider than the image, every correction.
inline std::vector<PreprocessSpec> specs() {
  std::vector<PreprocessSpec> all = {
      spec_of(224, Illumination::subtract, 37), spec_of(32, Illumination::divide, 5),
      spec_of(300, Illumination::none, 3),      spec_of(257, Illumination::subtract, 601),
      spec_of(640, Illumination::divide, 107),
  };
  all[1].crop_permille = 1100;
  all[2].crop_permille = 700;
  all[3].mask_permille = 1000;
  all[4].illumination_gain = 0.7F;
  return all;
}

} // namespace fundus::cuda::scenes
