// The kernels' arithmetic against the CPU core, bit for bit, with no GPU and no CUDA compiler: the
// steps run on the host over the launches' grid.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "emulation.hpp"
#include "fundus/preprocessor.hpp"
#include "scenes.hpp"

namespace {

using fundus::CropBox;
using fundus::FrameView;
using fundus::PreprocessSpec;
namespace emulation = fundus::cuda::emulation;
namespace scenes = fundus::cuda::scenes;

int checks = 0;
int failures = 0;

void check(bool holds, const std::string& what) {
  ++checks;
  if (holds) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  ++failures;
}

// An eye as the CPU core prepares it.
struct Prepared {
  explicit Prepared(const PreprocessSpec& spec)
      : count(static_cast<std::size_t>(spec.size) * static_cast<std::size_t>(spec.size)),
        image(3 * count),
        mask(count),
        tensor(3 * count) {}
  std::size_t count;
  std::vector<std::uint8_t> image;
  std::vector<std::uint8_t> mask;
  std::vector<float> tensor;
};

std::vector<std::uint32_t> packed(const Prepared& eye) {
  std::vector<std::uint32_t> crop(eye.count);
  for (std::size_t i = 0; i < eye.count; ++i) {
    crop[i] = static_cast<std::uint32_t>(eye.image[3 * i] | eye.image[3 * i + 1] << 8 |
                                         eye.image[3 * i + 2] << 16 | eye.mask[i] << 24);
  }
  return crop;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void thumbnail_equals_the_cores(const FrameView& frame, const std::string& name) {
  fundus::Thumbnail core;
  fundus::gather_thumbnail(frame, core);
  const emulation::Samples samples = emulation::gather_thumbnail(frame);
  check(samples.height == core.height && samples.width == core.width, name + ": thumbnail's size");
  const auto equal = [](const std::vector<std::uint32_t>& words,
                        const std::vector<std::uint8_t>& bytes) {
    return words.size() * 4 >= bytes.size() &&
           std::memcmp(words.data(), bytes.data(), bytes.size()) == 0;
  };
  check(equal(samples.brightness, core.brightness), name + ": thumbnail's brightness");
  check(equal(samples.rgb, core.rgb), name + ": thumbnail's colours");
}

void eye_equals_the_cores(const FrameView& frame, const PreprocessSpec& spec,
                          const std::string& name) {
  Prepared eye(spec);
  fundus::Preprocessor core(spec);
  const auto geometry = core.prepare(frame, {eye.image.data(), eye.mask.data()},
                                     {eye.tensor.data(), fundus::TensorType::fp32});
  check(!geometry.refusal, name + ": a field of view");
  if (geometry.refusal) return;
  const auto crop = emulation::resample(frame, geometry.box, spec);
  check(crop == packed(eye), name + ": 8-bit image and mask");
  check(same_bits(emulation::finish(crop, spec), eye.tensor), name + ": tensor");
}

void every_layout_disc_and_spec() {
  for (const auto& disc : scenes::discs()) {
    const std::string size = std::to_string(disc.width) + "x" + std::to_string(disc.height);
    for (const auto& layout : scenes::kLayouts) {
      const auto scene = scenes::scene_of(disc, layout, 7);
      const std::string name = size + " " + layout.name;
      thumbnail_equals_the_cores(scene.frame, name);
      for (const auto& spec : scenes::specs()) {
        eye_equals_the_cores(scene.frame, spec, name + " to " + std::to_string(spec.size));
      }
    }
  }
}

FrameView mirrored(FrameView frame) {
  frame.data += (frame.width - 1) * frame.pixel_stride_bytes;
  frame.pixel_stride_bytes = -frame.pixel_stride_bytes;
  return frame;
}

FrameView with_channels_reversed(FrameView frame) {
  frame.data += 2 * frame.channel_stride_bytes;
  frame.channel_stride_bytes = -frame.channel_stride_bytes;
  return frame;
}

void views_with_negative_strides() {
  const PreprocessSpec spec = scenes::specs()[0];
  for (const auto& layout : scenes::kLayouts) {
    const auto scene = scenes::scene_of(scenes::discs()[1], layout, 9);
    for (const FrameView& frame : {mirrored(scene.frame), with_channels_reversed(scene.frame),
                                   mirrored(with_channels_reversed(scene.frame))}) {
      const std::string name = std::string(layout.name) + ", a view";
      thumbnail_equals_the_cores(frame, name);
      eye_equals_the_cores(frame, spec, name);
    }
  }
}

// A cell's mean from the definition alone: every frame pixel and its overlap with the cell.
std::uint32_t mean_of_cell(const FrameView& frame, const CropBox& box, const PreprocessSpec& spec,
                           int row, int column, int channel) {
  const std::int64_t size = spec.size, height = box.height_px(), width = box.width_px();
  const auto overlap = [size](std::int64_t cell, std::int64_t pixel, std::int64_t length) {
    return std::min((cell + 1) * length, (pixel + 1) * size) -
           std::max(cell * length, pixel * size);
  };
  std::uint64_t sum = 0;
  for (std::int64_t y = row * height / size; y * size < (row + 1) * height; ++y) {
    for (std::int64_t x = column * width / size; x * size < (column + 1) * width; ++x) {
      const std::int64_t fy = box.top_px + y, fx = box.left_px + x;
      if (fy < 0 || fx < 0 || fy >= frame.height || fx >= frame.width) continue;
      const std::uint8_t level =
          frame.data[fy * frame.row_stride_bytes + fx * frame.pixel_stride_bytes + channel];
      sum +=
          level * static_cast<std::uint64_t>(overlap(row, y, height) * overlap(column, x, width));
    }
  }
  const auto area = static_cast<std::uint64_t>(height * width);
  const bool two_to_one = height == 2 * size && width == 2 * size;
  const std::uint64_t level = sum / area, twice = 2 * (sum % area);
  return static_cast<std::uint32_t>(
      level + (twice > area || (twice == area && (two_to_one || level % 2 == 1)) ? 1 : 0));
}

// Boxes that no disc would give: far over the borders, a few pixels, one axis grown, very wide.
void boxes_equal_the_definition() {
  const auto scene = scenes::scene_of({200, 2600, 500, 500, 400, 400}, scenes::kLayouts[0], 3);
  const CropBox boxes[] = {{-900, -50, 2700, 230}, {10, 10, 74, 74},    {100, 20, 107, 23},
                           {2590, 190, 2650, 260}, {-30, -40, 20, 300}, {0, 0, 2600, 200},
                           {1, 3, 2400, 67},       {-60, -60, 1, 1}};
  PreprocessSpec spec;
  spec.size = 32;
  for (const auto& box : boxes) {
    const auto crop = emulation::resample(scene.frame, box, spec);
    bool equal = true;
    for (int row = 0; row < spec.size; ++row) {
      for (int column = 0; column < spec.size; ++column) {
        for (int c = 0; c < 3; ++c) {
          const std::uint32_t pixel = crop[static_cast<std::size_t>(row * spec.size + column)];
          equal = equal && fundus::cuda::channel_of(pixel, c) ==
                               mean_of_cell(scene.frame, box, spec, row, column, c);
        }
      }
    }
    check(equal, "box from " + std::to_string(box.left_px) + ", " + std::to_string(box.top_px));
  }
}

// Small enough to list, large enough to need 64 bits, and exact halves.
void means_are_rounded_half_to_even() {
  using fundus::cuda::level_of;
  check(level_of(1, 2, false) == 0 && level_of(3, 2, false) == 2, "halves go to even levels");
  check(level_of(1, 2, true) == 1 && level_of(5, 2, true) == 3, "or up");
  check(level_of(2, 3, false) == 1 && level_of(1, 3, false) == 0, "others to the nearest");
  const std::uint64_t large = std::uint64_t{1} << 40;
  check(level_of(255 * large, large, false) == 255, "large areas fit");
  check(level_of(large / 2 + 1, large, false) == 1 && level_of(large / 2, large, false) == 0,
        "and keep every unit");
}

} // namespace

int main() {
  means_are_rounded_half_to_even();
  boxes_equal_the_definition();
  every_layout_disc_and_spec();
  views_with_negative_strides();
  std::printf("%d checks, %d failed\n", checks, failures);
  return failures == 0 ? 0 : 1;
}
