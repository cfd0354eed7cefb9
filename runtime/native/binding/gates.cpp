// What the gates compute, as Python sees it; fundus_runtime.gates.native is its interface.
#include "gates.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string_view>

#include "frame.hpp"
#include "fundus/fine_structure.hpp"
#include "fundus/gate_figures.hpp"
#include "fundus/side_score.hpp"
#include "values.hpp"

namespace nb = nanobind;

namespace {

using fundus::binding::Frame;
using fundus::binding::require;
using fundus::binding::view_of;

using Levels = nb::ndarray<std::uint16_t, nb::c_contig, nb::device::cpu>;
using Inside = nb::ndarray<std::uint8_t, nb::c_contig, nb::device::cpu>;
using GivenLevels = nb::ndarray<const std::uint16_t, nb::c_contig, nb::device::cpu>;
using Marks = nb::ndarray<const std::uint8_t, nb::c_contig, nb::device::cpu>;
using GivenDoubles = nb::ndarray<const double, nb::c_contig, nb::device::cpu>;
using Doubles = nb::ndarray<double, nb::c_contig, nb::device::cpu>;

constexpr std::size_t kCells = std::size_t{fundus::kGateCells} * fundus::kGateCells;

// Center and radius of the disc, as FieldOfView has them.
using Disc = std::array<int, 4>;

fundus::GateReadings measure(const fundus::FrameView& frame, const Disc& disc,
                             fundus::GateCells& cells) {
  const nb::gil_scoped_release released;
  fundus::FieldOfView field;
  field.center_x_px = disc[0];
  field.center_y_px = disc[1];
  field.radius_x_px = disc[2];
  field.radius_y_px = disc[3];
  return fundus::measure_gates(frame, field, cells);
}

nb::tuple measure_gates(const Frame& frame, const Disc& disc, std::string_view color,
                        const Levels& levels, const Inside& inside) {
  const auto cells = std::make_unique<fundus::GateCells>();
  require(levels.size() == cells->levels.size() && inside.size() == cells->inside.size(),
          "levels and inside are not 96 x 96 x 3 and 96 x 96");
  const fundus::GateReadings r = measure(view_of(frame, color), disc, *cells);
  std::copy(cells->levels.begin(), cells->levels.end(), levels.data());
  std::copy(cells->inside.begin(), cells->inside.end(), inside.data());
  return nb::make_tuple(r.cells, r.red, r.green, r.blue, r.red_over_blue, r.shaded_permille,
                        r.clipped_permille, r.detail, r.noise);
}

// Short enough to keep the interpreter's lock: threads that hand it over lose more.
void fine_structure(const GivenLevels& green, const Marks& inside, const Marks& cells,
                    const Doubles& values) {
  require(green.size() == kCells && inside.size() == kCells && cells.size() == kCells,
          "green, inside and cells are not 96 x 96");
  const auto ones =
      std::count_if(cells.data(), cells.data() + kCells, [](auto c) { return c != 0; });
  require(values.size() == static_cast<std::size_t>(ones), "values are not as many as cells");
  fundus::fine_structure(green.data(), inside.data(), cells.data(), values.data());
}

double side_score(const GivenLevels& levels, const Marks& inside, const GivenDoubles& weights) {
  require(levels.size() == 3 * kCells && inside.size() == kCells,
          "levels and inside are not 96 x 96 x 3 and 96 x 96");
  require(weights.size() == fundus::kSideWeights, "there are not 256 weights");
  return fundus::side_score(levels.data(), inside.data(), weights.data());
}

} // namespace

void bind_gates(nb::module_& module) {
  using namespace nb::literals;
  module.def("measure_gates", &measure_gates, "frame"_a.noconvert(), "disc"_a, "color"_a,
             "levels"_a.noconvert(), "inside"_a.noconvert(),
             "Fill levels and inside; the figures, in the order of fundus::GateReadings.");
  module.def("fine_structure", &fine_structure, "green"_a.noconvert(), "inside"_a.noconvert(),
             "cells"_a.noconvert(), "values"_a.noconvert(),
             "Fill values with the fine structure of these cells.");
  module.def("side_score", &side_score, "levels"_a.noconvert(), "inside"_a.noconvert(),
             "weights"_a.noconvert(), "Log odds of a left eye.");
}
