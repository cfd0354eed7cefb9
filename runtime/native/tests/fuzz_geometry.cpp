// Feeds the preprocessor and the gates frames of every geometry and content: sizes, strides and
// their signs, channel orders, specs. Meant for a build with sanitizers. A frame's memory is
// exactly as large as its geometry says, so that a read beyond it is seen. usage: fuzz_geometry
// [inputs] [seed]
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>

#include "drawn.hpp"
#include "fundus/gate_figures.hpp"

namespace {

using drawn::check;
using drawn::Random;
using fundus::FrameView;
using fundus::Preprocessor;
using fundus::PreprocessSpec;

constexpr int kFramesPerSpec = 8;

PreprocessSpec random_spec(Random& random) {
  PreprocessSpec spec;
  spec.size = random.one_in(20) ? random.from(32, 300) : random.from(32, 72);
  spec.crop_permille = random.from(500, 2000);
  spec.mask_permille = random.from(500, 1000);
  spec.illumination = static_cast<fundus::Illumination>(random.from(0, 2));
  spec.illumination_window_px = 2 * random.from(1, random.one_in(10) ? 1023 : 40) + 1;
  spec.illumination_gain = static_cast<float>(random.from(1, 80)) / 10.0F;
  spec.illumination_constant = static_cast<float>(random.from(0, 255));
  return spec;
}

drawn::Pixels random_pixels(int height, int width, Random& random) {
  const int kind = random.from(0, 9);
  if (kind == 0)
    return drawn::Pixels(static_cast<std::size_t>(height * width * 3),
                         static_cast<std::uint8_t>(random.from(0, 255)));
  const double radius = std::min(height, width) * random.from(20, 70) / 100.0;
  const double squash = kind <= 3 ? random.from(55, 180) / 100.0 : 1.0;
  const drawn::Disc disc{width * random.from(30, 70) / 100.0, height * random.from(30, 70) / 100.0,
                         radius * squash, radius};
  drawn::Pixels pixels = drawn::fundus(height, width, disc, random, random.from(0, 55));
  // Bars, dust and noise over it.
  for (int k = kind == 9 ? random.from(0, 400) : random.from(0, 4); k > 0; --k) {
    const int top = random.from(0, height - 1), left = random.from(0, width - 1);
    const int bottom = std::min(height, top + random.from(1, 30));
    const int right = std::min(width, left + random.from(1, 30));
    const auto level = static_cast<std::uint8_t>(random.from(0, 255));
    for (int y = top; y < bottom; ++y)
      std::memset(pixels.data() + 3 * (y * width + left), level,
                  static_cast<std::size_t>(3 * (right - left)));
  }
  return pixels;
}

int random_side(Random& random) {
  if (random.one_in(40)) return random.from(64, 900);
  return random.one_in(3) ? random.from(64, 70) : random.from(64, 200);
}

// The same pixels with random strides, in a block of exactly the bytes between the first and last.
struct StridedFrame {
  std::unique_ptr<std::uint8_t[]> memory;
  FrameView view;
};

StridedFrame strided(const drawn::Pixels& pixels, int height, int width, Random& random) {
  const auto sign = [&random] { return random.one_in(3) ? -1 : 1; };
  std::ptrdiff_t channel = 1, pixel = random.one_in(2) ? 3 : random.from(3, 9);
  if (random.one_in(4)) channel = random.from(1, static_cast<int>((pixel - 1) / 2));
  std::ptrdiff_t row = pixel * width + (random.one_in(2) ? 0 : random.from(0, 70));
  if (random.one_in(6)) { // planes
    pixel = 1;
    row = width + random.from(0, 9);
    channel = row * height + random.from(0, 99);
  } else if (random.one_in(6)) { // columns first
    pixel = 3 * height;
    row = 3;
    channel = 1;
  }
  channel *= sign();
  pixel *= sign();
  row *= sign();
  const std::array<std::ptrdiff_t, 3> reach = {channel * 2, pixel * (width - 1),
                                               row * (height - 1)};
  std::ptrdiff_t low = 0, high = 0;
  for (const std::ptrdiff_t part : reach) (part < 0 ? low : high) += part;
  StridedFrame frame;
  frame.memory = std::make_unique<std::uint8_t[]>(static_cast<std::size_t>(high - low + 1));
  std::uint8_t* const start = frame.memory.get() - low;
  const std::uint8_t* source = pixels.data();
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c) start[y * row + x * pixel + c * channel] = *source++;
  frame.view.data = start;
  frame.view.height = height;
  frame.view.width = width;
  frame.view.row_stride_bytes = row;
  frame.view.pixel_stride_bytes = pixel;
  frame.view.channel_stride_bytes = channel;
  return frame;
}

void check_eye(const drawn::Eye& eye) {
  if (eye.geometry.refusal) return;
  const std::size_t count = eye.mask.size();
  bool binary = true, finite = true, clean = true;
  for (std::size_t i = 0; i < 3 * count; ++i) {
    binary = binary && eye.mask[i % count] <= 1;
    finite = finite && std::isfinite(eye.tensor[i]);
    clean = clean && (eye.mask[i % count] != 0 || eye.tensor[i] == 0.0F);
  }
  check(binary, "the mask is 1 or 0");
  check(finite, "the tensor is finite");
  check(clean, "the tensor is 0 outside the mask");
}

void out_of_range_is_refused(Preprocessor& preprocessor, FrameView view, Random& random) {
  (random.one_in(2) ? view.height : view.width) = random.from(-3, 63);
  try {
    drawn::prepare(preprocessor, view);
  } catch (const std::invalid_argument&) {
    return;
  }
  check(false, "a side under 64 px is refused");
}

// The gates read the same memory, for any disc.
void fuzz_gates(const FrameView& strided, const FrameView& packed, Random& random) {
  const fundus::FieldOfView disc{random.from(-50, packed.width + 50),
                                 random.from(-50, packed.height + 50),
                                 random.from(1, packed.width),
                                 random.from(1, packed.height),
                                 0,
                                 0};
  fundus::GateCells cells, expected;
  const bool agree =
      drawn::same(measure_gates(strided, disc, cells), measure_gates(packed, disc, expected));
  check(agree && cells.levels == expected.levels && cells.inside == expected.inside,
        "strides do not matter to the gates");
}

// Thumbnails that no frame gave, as a twin on a GPU might hand them over.
void fuzz_thumbnail(fundus::FieldOfViewFinder& finder, Random& random) {
  const int height = random.from(1, 160), width = random.from(1, 160), stride = random.from(1, 40);
  drawn::Pixels brightness(static_cast<std::size_t>(height * width));
  const int density = random.from(1, 30);
  for (std::uint8_t& level : brightness)
    level = random.one_in(density) ? 0 : static_cast<std::uint8_t>(random.from(0, 255));
  finder.find(brightness.data(), height, width, stride, height * stride, width * stride);
}

} // namespace

int main(int argc, char** argv) {
  const long inputs = argc > 1 ? std::atol(argv[1]) : 2000;
  const long seed = argc > 2 ? std::atol(argv[2]) : 1;
  Random random(static_cast<std::uint64_t>(seed));
  fundus::FieldOfViewFinder finder;
  std::unique_ptr<Preprocessor> preprocessor, baseline;
  long usable = 0;
  for (long i = 0; i < inputs; ++i) {
    if (i % kFramesPerSpec == 0) {
      const PreprocessSpec spec = random_spec(random);
      preprocessor = std::make_unique<Preprocessor>(spec, random.one_in(4) ? 3 : 1);
      baseline = std::make_unique<Preprocessor>(spec, 1, fundus::KernelSet::baseline);
    }
    const int height = random_side(random), width = random_side(random);
    const drawn::Pixels pixels = random_pixels(height, width, random);
    const StridedFrame frame = strided(pixels, height, width, random);
    const drawn::Eye eye = drawn::prepare(*preprocessor, frame.view);
    check_eye(eye);
    usable += eye.geometry.refusal ? 0 : 1;
    if (random.one_in(4))
      check(drawn::same(eye, drawn::prepare(*baseline, drawn::packed(pixels, height, width))),
            "strides, kernels and threads do not matter");
    if (random.one_in(4)) fuzz_gates(frame.view, drawn::packed(pixels, height, width), random);
    if (random.one_in(50)) out_of_range_is_refused(*preprocessor, frame.view, random);
    if (random.one_in(5)) fuzz_thumbnail(finder, random);
    if (drawn::failures != 0) {
      std::fprintf(stderr, "at input %ld of seed %ld\n", i, seed);
      return 1;
    }
  }
  std::printf("%ld frames, seed %ld, %ld of them with a field of view\n", inputs, seed, usable);
  return 0;
}
