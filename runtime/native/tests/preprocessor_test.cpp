// The preprocessing as a C++ robot stack uses it; against the reference it is tested from Python.
#include "fundus/preprocessor.hpp"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>

#include "drawn.hpp"

namespace {

std::atomic<long> allocations{0};

void* counted(std::size_t size) {
  ++allocations;
  if (void* const memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}

} // namespace

void* operator new(std::size_t size) {
  return counted(size);
}
void* operator new[](std::size_t size) {
  return counted(size);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace {

using drawn::check;
using fundus::FrameView;
using fundus::Preprocessor;
using fundus::PreprocessSpec;

constexpr int kHeight = 300, kWidth = 360;
constexpr drawn::Disc kWhole{180.0, 150.0, 130.0, 130.0};
constexpr drawn::Disc kCut{170.0, 100.0, 130.0, 130.0};
constexpr drawn::Disc kSquashed{180.0, 150.0, 160.0, 120.0};

void a_disc_is_found_where_it_was_drawn() {
  drawn::Random random(1);
  const drawn::Pixels pixels = drawn::fundus(kHeight, kWidth, kWhole, random);
  Preprocessor preprocessor{PreprocessSpec{}};
  const drawn::Eye eye = drawn::prepare(preprocessor, drawn::packed(pixels, kHeight, kWidth));
  check(!eye.geometry.refusal, "a drawn disc is not refused");
  check(std::abs(eye.geometry.field.center_x_px - 180) <= 3, "its centre's column is found");
  check(std::abs(eye.geometry.field.radius_y_px - 130) <= 3, "its radius is found");
  check(eye.geometry.box.width_px() == 2 * eye.geometry.field.radius_x_px, "the box bounds it");
  const std::size_t middle = 112 * 224 + 112;
  check(eye.mask[middle] == 1 && eye.mask[0] == 0, "the mask is the inscribed circle");
  check(std::abs(eye.image[3 * middle] - 200) <= 20, "red comes first in the image");
  check(eye.tensor[0] == 0.0F, "the tensor is 0 outside the mask");
}

void nothing_is_allocated_after_the_first_call_with_a_size() {
  drawn::Random random(2);
  const drawn::Pixels first = drawn::fundus(kHeight, kWidth, kWhole, random);
  // Other content of the same size: noise has the most runs, an ellipse the longest search.
  const drawn::Pixels others[] = {drawn::fundus(kHeight, kWidth, kCut, random),
                                  drawn::fundus(kHeight, kWidth, kSquashed, random),
                                  drawn::fundus(kHeight, kWidth, {180, 150, 900, 900}, random, 55),
                                  drawn::fundus(kHeight, kWidth, {180, 150, 60, 60}, random)};
  for (const int threads : {1, 3}) {
    Preprocessor preprocessor(PreprocessSpec{}, threads);
    const auto side = static_cast<std::size_t>(preprocessor.spec().size);
    drawn::Pixels image(3 * side * side), mask(side * side);
    std::vector<std::uint16_t> halves(3 * side * side);
    const auto prepare = [&](const drawn::Pixels& pixels) {
      preprocessor.prepare(drawn::packed(pixels, kHeight, kWidth), {image.data(), mask.data()},
                           {halves.data(), fundus::TensorType::fp16});
    };
    prepare(first);
    const long before = allocations;
    for (const drawn::Pixels& pixels : others) prepare(pixels);
    check(allocations == before, "a later call of the same frame size allocates nothing");
  }
}

void every_kernel_set_and_thread_count_gives_the_same_bits() {
  drawn::Random random(3);
  for (const drawn::Disc& disc : {kWhole, kCut, kSquashed}) {
    const drawn::Pixels pixels = drawn::fundus(kHeight, kWidth, disc, random);
    for (const auto illumination : {fundus::Illumination::subtract, fundus::Illumination::divide,
                                    fundus::Illumination::none}) {
      PreprocessSpec spec;
      spec.illumination = illumination;
      spec.size = 101;
      Preprocessor baseline(spec, 1, fundus::KernelSet::baseline);
      const FrameView frame = drawn::packed(pixels, kHeight, kWidth);
      const drawn::Eye expected = drawn::prepare(baseline, frame);
      check(!expected.geometry.refusal, "the drawn disc is not refused");
      for (const auto set :
           {fundus::KernelSet::best, fundus::KernelSet::avx2, fundus::KernelSet::avx512}) {
        if (!fundus::kernel_set_usable(set)) continue;
        for (const int threads : {1, 2, 5}) {
          Preprocessor other(spec, threads, set);
          check(drawn::same(expected, drawn::prepare(other, frame)), "kernels and threads agree");
        }
      }
    }
  }
}

void strides_do_not_matter() {
  drawn::Random random(4);
  const drawn::Pixels pixels = drawn::fundus(kHeight, kWidth, kCut, random);
  Preprocessor preprocessor{PreprocessSpec{}};
  const drawn::Eye expected = drawn::prepare(preprocessor, drawn::packed(pixels, kHeight, kWidth));
  for (const std::ptrdiff_t pixel : {4, 5, -3, -4}) {
    const std::ptrdiff_t row = std::abs(pixel) * kWidth + 7;
    drawn::Pixels wide(static_cast<std::size_t>(row * kHeight));
    FrameView view = drawn::packed(wide, kHeight, kWidth);
    view.pixel_stride_bytes = pixel;
    view.row_stride_bytes = -row;
    view.data = wide.data() + (kHeight - 1) * row + (pixel < 0 ? (1 - kWidth) * pixel : 0);
    for (int y = 0; y < kHeight; ++y)
      for (int x = 0; x < kWidth; ++x)
        for (int c = 0; c < 3; ++c)
          wide[static_cast<std::size_t>(view.data - wide.data() - y * row + x * pixel + c)] =
              pixels[static_cast<std::size_t>((y * kWidth + x) * 3 + c)];
    check(drawn::same(expected, drawn::prepare(preprocessor, view)), "a strided view is the frame");
  }
  FrameView reversed = drawn::packed(pixels, kHeight, kWidth);
  reversed.data += 2;
  reversed.channel_stride_bytes = -1;
  reversed.color = fundus::ColorOrder::bgr;
  check(drawn::same(expected, drawn::prepare(preprocessor, reversed)),
        "channels backwards in the other order are the frame");
}

template <class Call>
bool refused(Call call) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    return std::string(error.what()).size() > 10;
  }
  return false;
}

void what_makes_no_sense_is_refused() {
  const drawn::Pixels pixels(64 * 64 * 3);
  Preprocessor preprocessor{PreprocessSpec{}};
  const FrameView good = drawn::packed(pixels, 64, 64);
  const auto prepare = [&](FrameView frame) { drawn::prepare(preprocessor, frame); };
  for (const int side : {-5, 0, 63, fundus::kMaxFrameSidePx + 1}) {
    FrameView frame = good;
    frame.height = side;
    check(refused([&] { prepare(frame); }), "a height out of range is refused");
    frame = good;
    frame.width = side;
    check(refused([&] { prepare(frame); }), "a width out of range is refused");
  }
  FrameView nowhere = good;
  nowhere.data = nullptr;
  check(refused([&] { prepare(nowhere); }), "a frame without data is refused");
  check(refused([] { Preprocessor(PreprocessSpec{}, 0); }), "no thread is refused");
  PreprocessSpec spec;
  spec.size = 31;
  check(refused([&] { Preprocessor{spec}; }), "a size out of range is refused");
  spec = {};
  spec.illumination_window_px = 8;
  check(refused([&] { Preprocessor{spec}; }), "an even window is refused");
  const drawn::Eye dark = drawn::prepare(preprocessor, good);
  check(dark.geometry.refusal.reason == "no_fundus", "and the preprocessor is still usable");
}

// Every finite half, and the values between two halves, by their definition.
void halves_are_rounded_to_nearest_even() {
  PreprocessSpec spec;
  spec.size = 32;
  spec.illumination = fundus::Illumination::none;
  drawn::Pixels image(3 * 32 * 32), mask(32 * 32, 1);
  for (std::size_t i = 0; i < image.size(); ++i) image[i] = static_cast<std::uint8_t>(i * 7);
  std::vector<float> values(image.size());
  std::vector<std::uint16_t> halves(image.size());
  for (const float std : {1e-7F, 1e-3F, 0.229F, 1.0F, 50.0F, 3e4F, 1e9F}) {
    spec.std = {std, std * 1.37F, std * 0.73F};
    Preprocessor preprocessor{spec};
    preprocessor.normalise(image.data(), mask.data(), {values.data(), fundus::TensorType::fp32});
    preprocessor.normalise(image.data(), mask.data(), {halves.data(), fundus::TensorType::fp16});
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double value = std::fabs(static_cast<double>(values[i]));
      const int exponent = (halves[i] >> 10) & 31, fraction = halves[i] & 1023;
      if (value >= 65520.0) {
        check((halves[i] & 0x7FFF) == 0x7C00, "beyond the range is infinity");
        continue;
      }
      const double unit = std::ldexp(1.0, std::max(exponent, 1) - 25);
      const double half = unit * (exponent == 0 ? fraction : fraction + 1024);
      const double off = std::fabs(value - half);
      check(off < unit / 2 || (off == unit / 2 && fraction % 2 == 0), "nearest, ties to even");
      check(((halves[i] >> 15) != 0) == std::signbit(values[i]), "the sign stays");
    }
  }
}

} // namespace

int main() {
  a_disc_is_found_where_it_was_drawn();
  nothing_is_allocated_after_the_first_call_with_a_size();
  every_kernel_set_and_thread_count_gives_the_same_bits();
  strides_do_not_matter();
  what_makes_no_sense_is_refused();
  halves_are_rounded_to_nearest_even();
  return drawn::failures == 0 ? 0 : 1;
}
