// The gates' figures as a C++ robot stack uses them; against the reference they are tested from
// Python.
#include "fundus/gate_figures.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "drawn.hpp"
#include "fundus/fine_structure.hpp"
#include "fundus/side_score.hpp"

namespace {

using drawn::check;
using drawn::same;
using fundus::FieldOfView;
using fundus::FrameView;
using fundus::GateCells;

constexpr int kHeight = 300, kWidth = 360;
constexpr drawn::Disc kDisc{180.0, 150.0, 130.0, 130.0};
constexpr FieldOfView kField{180, 150, 130, 130, 1000, 1000};

void a_drawn_fundus_has_the_levels_that_it_was_drawn_with() {
  drawn::Random random(1);
  const auto pixels = drawn::fundus(kHeight, kWidth, kDisc, random, 0);
  GateCells cells;
  const auto readings = measure_gates(drawn::packed(pixels, kHeight, kWidth), kField, cells);
  check(readings.red == 16 * 200 && readings.green == 16 * 140 && readings.blue == 16 * 80,
        "levels are sixteenths");
  check(readings.red_over_blue == 16 * 120, "red minus blue");
  check(readings.detail == 0 && readings.noise == 0, "a flat disc has neither detail nor noise");
  check(readings.shaded_permille == 0 && readings.clipped_permille == 0, "nor shadow nor glare");
}

void noise_rises_with_the_noise() {
  int before = -1;
  GateCells cells;
  for (const int noise : {0, 4, 12, 30}) {
    drawn::Random random(2);
    const auto pixels = drawn::fundus(kHeight, kWidth, kDisc, random, noise);
    const auto readings = measure_gates(drawn::packed(pixels, kHeight, kWidth), kField, cells);
    check(readings.noise > before, "more noise, a larger figure");
    before = readings.noise;
  }
}

// Frames in memory of exactly their size, so that the sanitizers see a read beyond it.
void no_disc_reads_beyond_the_frame() {
  drawn::Random random(3);
  GateCells cells, again;
  for (int round = 0; round < 2000; ++round) {
    const int height = random.from(64, 160), width = random.from(64, 160);
    const auto size = static_cast<std::size_t>(3 * height * width);
    const auto pixels = std::make_unique<std::uint8_t[]>(size);
    for (std::size_t k = 0; k < size; ++k)
      pixels[k] = static_cast<std::uint8_t>(random.from(0, 255));
    const FieldOfView disc{random.from(-100, 300),
                           random.from(-100, 300),
                           random.from(1, 400),
                           random.from(1, 400),
                           0,
                           0};
    FrameView frame;
    frame.data = pixels.get();
    frame.height = height;
    frame.width = width;
    frame.row_stride_bytes = 3 * width;
    const auto readings = measure_gates(frame, disc, cells);
    // channels read backwards, and named backwards
    frame.data += 2;
    frame.channel_stride_bytes = -1;
    frame.color = fundus::ColorOrder::bgr;
    check(same(readings, measure_gates(frame, disc, again)), "strides do not matter");
    check(cells.levels == again.levels && cells.inside == again.inside, "nor for the cells");
  }
}

// Values and weights in memory of exactly their size, for any set of cells, none included.
void what_is_derived_from_cells_is_finite_and_changes_sides_in_the_mirror() {
  drawn::Random random(5);
  const std::vector<double> weights(fundus::kSideWeights, 0.01);
  constexpr std::size_t kSide = fundus::kGateCells;
  for (int round = 0; round < 200; ++round) {
    GateCells cells{}, mirrored{};
    const int one_in = random.from(1, 4);
    for (std::size_t k = 0; k < cells.inside.size(); ++k) {
      if (round == 0 || !random.one_in(one_in)) continue;
      const std::size_t other = k / kSide * kSide + kSide - 1 - k % kSide;
      cells.inside[k] = mirrored.inside[other] = 1;
      for (std::size_t c = 0; c < 3; ++c)
        cells.levels[3 * k + c] = mirrored.levels[3 * other + c] =
            static_cast<std::uint16_t>(random.from(0, 4080));
    }
    std::vector<std::uint16_t> green(cells.inside.size());
    for (std::size_t k = 0; k < green.size(); ++k) green[k] = cells.levels[3 * k + 1];
    const auto count = std::count(cells.inside.begin(), cells.inside.end(), std::uint8_t{1});
    std::vector<double> values(static_cast<std::size_t>(count));
    fundus::fine_structure(green.data(), cells.inside.data(), cells.inside.data(), values.data());
    check(std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); }),
          "the structure is finite");
    check(std::fabs(std::accumulate(values.begin(), values.end(), 0.0)) < 1e-3, "and centred");
    const double score =
        fundus::side_score(cells.levels.data(), cells.inside.data(), weights.data());
    const double back =
        fundus::side_score(mirrored.levels.data(), mirrored.inside.data(), weights.data());
    check(std::isfinite(score) && std::fabs(score + back) < 1e-9, "a mirror image is of the other");
    check(round > 0 || (count == 0 && score == 0), "without cells there is no side");
  }
}

void what_makes_no_sense_is_refused() {
  drawn::Random random(4);
  const auto pixels = drawn::fundus(kHeight, kWidth, kDisc, random);
  const auto frame = drawn::packed(pixels, kHeight, kWidth);
  GateCells cells;
  for (const int radius : {0, -5, fundus::kMaxGateRadiusPx + 1}) {
    bool refused = false;
    try {
      measure_gates(frame, FieldOfView{180, 150, radius, 130, 0, 0}, cells);
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    check(refused, "a disc without extent or beyond any frame");
  }
}

} // namespace

int main() {
  a_drawn_fundus_has_the_levels_that_it_was_drawn_with();
  noise_rises_with_the_noise();
  no_disc_reads_beyond_the_frame();
  what_is_derived_from_cells_is_finite_and_changes_sides_in_the_mirror();
  what_makes_no_sense_is_refused();
  return drawn::failures == 0 ? 0 : 1;
}
