// fundus::measure_gates as Python sees it; fundus_runtime.gates.native is its interface.
#include "gates.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string_view>

#include "frame.hpp"
#include "fundus/gate_figures.hpp"
#include "values.hpp"

namespace nb = nanobind;

namespace {

using fundus::binding::Frame;
using fundus::binding::require;
using fundus::binding::view_of;

using Levels = nb::ndarray<std::uint16_t, nb::c_contig, nb::device::cpu>;
using Inside = nb::ndarray<std::uint8_t, nb::c_contig, nb::device::cpu>;

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

} // namespace

void bind_gates(nb::module_& module) {
  using namespace nb::literals;
  module.def("measure_gates", &measure_gates, "frame"_a.noconvert(), "disc"_a, "color"_a,
             "levels"_a.noconvert(), "inside"_a.noconvert(),
             "Fill levels and inside; the figures, in the order of fundus::GateReadings.");
}
