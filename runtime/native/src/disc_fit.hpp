// The circle, or the axis-aligned ellipse, through most of a disc's rim samples. Doubles in the
// order of the Python reference, so that both see the same numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "component.hpp"
#include "kernels.hpp"

namespace fundus {

// Rim samples in half thumbnail cells. Columns apart, so that a loop over them vectorises.
struct Points {
  std::vector<double> x, y;
  std::size_t size() const noexcept { return x.size(); }
  void clear() noexcept;
  void reserve(std::size_t count);
  void add(double px, double py);
};

// Outermost cell edges by row and by column; neither those on the border nor a straight side's.
class RimTracer {
 public:
  void trace(const LargestComponent& component, int height, int width, Points& rim);

 private:
  struct Edge {
    int across; // grows with the side's direction: the column of a left or right side
    int along;
  };
  // Appends a side; `turned` where it is the top or the bottom one.
  void append(const std::vector<Edge>& side, bool turned, Points& rim);

  std::vector<int> first_, last_, counts_;
  std::vector<Edge> low_, high_;
};

struct Disc {
  double x = 0.0, y = 0.0, radius_x = 0.0, radius_y = 0.0;
};

class DiscFitter {
 public:
  // So that fit() allocates nothing for rims of up to so many samples.
  void reserve(std::size_t count);

  // Afterwards agrees() holds, for each rim sample, whether it lies on the disc.
  Disc fit(const Points& rim);
  const std::vector<std::uint8_t>& agrees() const noexcept { return agrees_; }
  int agreeing() const noexcept { return agreeing_; }

 private:
  struct Circle {
    double x = 0.0, y = 0.0, radius = 0.0;
  };
  Circle fit_circle(const Points& points, std::vector<std::uint8_t>& agrees, int& agreeing);
  void order_by_turn(const Points& points);
  static Circle circumcircle(const Points& points, const int* triple);
  static Circle least_squares(const Points& points, const std::vector<std::uint8_t>& chosen);

  const Kernels* kernels_ = kernels_of(KernelSet::best);
  Points stretched_;
  std::vector<double> turns_;
  std::vector<int> order_;
  std::vector<std::uint8_t> agrees_, trial_;
  int agreeing_ = 0;
};

// A number that grows with the angle, 0 to 4: exact where atan2 is not.
double turn_of(double x, double y) noexcept;

} // namespace fundus
