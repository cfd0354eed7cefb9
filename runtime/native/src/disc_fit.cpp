#include "disc_fit.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

namespace fundus {

namespace {

constexpr int kStraightPercent = 30;
constexpr double kCircleConsensus = 0.80, kEllipseGain = 1.10;
constexpr std::array<double, 12> kStretches = {0.60, 0.66, 0.75, 0.80, 0.86, 0.93,
                                               1.07, 1.16, 1.25, 1.33, 1.50, 1.66};
constexpr int kTripleStarts = 24;
constexpr int kRefinements = 4;

bool on_circle(double px, double py, double x, double y, double radius, double tolerance) {
  const double dx = px - x, dy = py - y;
  return std::fabs(std::sqrt(dx * dx + dy * dy) - radius) <= tolerance;
}

// Within one cell and a hundredth of the radius.
double tolerance_of(double radius) {
  return 2.0 + 0.01 * radius;
}

int mark_on_circle(const Points& points, double x, double y, double radius,
                   std::vector<std::uint8_t>& marks) {
  const double tolerance = tolerance_of(radius);
  int count = 0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    marks[i] = on_circle(points.x[i], points.y[i], x, y, radius, tolerance) ? 1 : 0;
    count += marks[i];
  }
  return count;
}

} // namespace

void Points::clear() noexcept {
  x.clear();
  y.clear();
}

void Points::reserve(std::size_t count) {
  x.reserve(count);
  y.reserve(count);
}

void Points::add(double px, double py) {
  x.push_back(px);
  y.push_back(py);
}

void RimTracer::trace(const LargestComponent& component, int height, int width, Points& rim) {
  const auto longest = static_cast<std::size_t>(std::max(height, width));
  rim.clear();
  rim.reserve(4 * longest);
  low_.reserve(longest);
  high_.reserve(longest);
  counts_.reserve(2 * longest + 1);
  first_.reserve(longest);
  last_.reserve(longest);

  const auto trace_axis = [&](int lines, int length, bool turned) {
    low_.clear();
    high_.clear();
    for (int line = 0; line < lines; ++line) {
      const int first = first_[static_cast<std::size_t>(line)];
      const int last = last_[static_cast<std::size_t>(line)];
      if (last < 0) continue;
      if (first > 0) low_.push_back({2 * first, 2 * line + 1});
      if (last < length - 1) high_.push_back({2 * last + 2, 2 * line + 1});
    }
    append(low_, turned, rim);
    append(high_, turned, rim);
  };

  first_.assign(static_cast<std::size_t>(height), width);
  last_.assign(static_cast<std::size_t>(height), -1);
  for (const Run& run : component.runs()) {
    const auto row = static_cast<std::size_t>(run.row);
    first_[row] = std::min(first_[row], run.begin);
    last_[row] = std::max(last_[row], run.end - 1);
  }
  trace_axis(height, width, false);

  first_.assign(static_cast<std::size_t>(width), height);
  last_.assign(static_cast<std::size_t>(width), -1);
  for (const Run& run : component.runs()) {
    for (auto x = static_cast<std::size_t>(run.begin); x < static_cast<std::size_t>(run.end); ++x) {
      first_[x] = std::min(first_[x], run.row);
      last_[x] = run.row; // runs come row by row
    }
  }
  trace_axis(width, height, true);
}

// A camera's black band cuts the disc like the border; a circle keeps to one column for at most a
// sixth of its height at this sampling.
void RimTracer::append(const std::vector<Edge>& side, bool turned, Points& rim) {
  if (side.empty()) return;
  int furthest = 0;
  for (const Edge& edge : side) furthest = std::max(furthest, edge.across);
  counts_.assign(static_cast<std::size_t>(furthest) + 1, 0);
  for (const Edge& edge : side) ++counts_[static_cast<std::size_t>(edge.across)];
  const auto most = std::max_element(counts_.begin(), counts_.end());
  const int column = static_cast<int>(most - counts_.begin());
  const bool straight = static_cast<std::int64_t>(*most) * 100 >=
                        kStraightPercent * static_cast<std::int64_t>(side.size());
  for (const Edge& edge : side) {
    if (straight && std::abs(edge.across - column) <= 2) continue;
    if (turned) {
      rim.add(edge.along, edge.across);
    } else {
      rim.add(edge.across, edge.along);
    }
  }
}

double turn_of(double x, double y) noexcept {
  const double span = std::max(std::fabs(x) + std::fabs(y), 1e-12);
  const double quarter = y / span;
  if (x < 0) return 2.0 - quarter;
  return y < 0 ? 4.0 + quarter : quarter;
}

void DiscFitter::reserve(std::size_t count) {
  stretched_.reserve(count);
  turns_.reserve(count);
  order_.reserve(count);
  agrees_.reserve(count);
  trial_.reserve(count);
}

Disc DiscFitter::fit(const Points& rim) {
  const std::size_t count = rim.size();
  agrees_.resize(count);
  trial_.resize(count);
  Circle circle = fit_circle(rim, agrees_, agreeing_);
  Disc best{circle.x, circle.y, circle.radius, circle.radius};
  if (agreeing_ >= kCircleConsensus * static_cast<double>(count)) return best;
  double needed = kEllipseGain * agreeing_;
  stretched_.y = rim.y;
  stretched_.x.resize(count);
  for (const double stretch : kStretches) {
    for (std::size_t i = 0; i < count; ++i) stretched_.x[i] = rim.x[i] * stretch;
    int agreeing = 0;
    circle = fit_circle(stretched_, trial_, agreeing);
    if (agreeing > needed) {
      needed = agreeing;
      best = {circle.x / stretch, circle.y, circle.radius / stretch, circle.radius};
      agreeing_ = agreeing;
      agrees_.swap(trial_);
    }
  }
  return best;
}

// Consensus over triples spread along the rim, then least squares on those that agree.
DiscFitter::Circle DiscFitter::fit_circle(const Points& points, std::vector<std::uint8_t>& agrees,
                                          int& agreeing) {
  order_by_turn(points);
  const int count = static_cast<int>(points.size());
  Circle best;
  agreeing = 0;
  for (int start = 0; start < kTripleStarts; ++start) {
    const auto first = static_cast<int>(static_cast<std::int64_t>(count) * start / kTripleStarts);
    for (const int parts : {3, 4, 6}) {
      const int spread = count / parts;
      const std::array<int, 3> triple = {
          order_[static_cast<std::size_t>(first)],
          order_[static_cast<std::size_t>((first + spread) % count)],
          order_[static_cast<std::size_t>((first + 2 * spread) % count)]};
      const Circle candidate = circumcircle(points, triple.data());
      const int agree =
          kernels_->count_on_circle(points.x.data(), points.y.data(), points.size(), candidate.x,
                                    candidate.y, candidate.radius, tolerance_of(candidate.radius));
      if (agree > agreeing) {
        agreeing = agree;
        best = candidate;
      }
    }
  }
  if (agreeing == 0) {
    std::fill(agrees.begin(), agrees.end(), std::uint8_t{0});
    return best;
  }
  mark_on_circle(points, best.x, best.y, best.radius, agrees);
  for (int i = 0; i < kRefinements && agreeing >= 3; ++i) {
    best = least_squares(points, agrees);
    agreeing = mark_on_circle(points, best.x, best.y, best.radius, agrees);
  }
  return best;
}

void DiscFitter::order_by_turn(const Points& points) {
  const std::size_t count = points.size();
  double sum_x = 0.0, sum_y = 0.0;
  for (std::size_t i = 0; i < count; ++i) {
    sum_x += points.x[i];
    sum_y += points.y[i];
  }
  const double mean_x = sum_x / static_cast<double>(count);
  const double mean_y = sum_y / static_cast<double>(count);
  turns_.resize(count);
  order_.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    turns_[i] = turn_of(points.x[i] - mean_x, points.y[i] - mean_y);
    order_[i] = static_cast<int>(i);
  }
  // Ties by index make it the stable order, without the memory that a stable sort asks for.
  std::sort(order_.begin(), order_.end(), [this](int a, int b) {
    const double turn_a = turns_[static_cast<std::size_t>(a)];
    const double turn_b = turns_[static_cast<std::size_t>(b)];
    return turn_a < turn_b || (turn_a == turn_b && a < b);
  });
}

DiscFitter::Circle DiscFitter::circumcircle(const Points& points, const int* triple) {
  const auto a = static_cast<std::size_t>(triple[0]), b = static_cast<std::size_t>(triple[1]),
             c = static_cast<std::size_t>(triple[2]);
  const double ax = points.x[a], ay = points.y[a];
  const double bx = points.x[b] - ax, by = points.y[b] - ay;
  const double cx = points.x[c] - ax, cy = points.y[c] - ay;
  const double twice_area = 2.0 * (bx * cy - by * cx);
  if (std::fabs(twice_area) < 1e-9) return {};
  const double b2 = bx * bx + by * by, c2 = cx * cx + cy * cy;
  const double x = (cy * b2 - by * c2) / twice_area;
  const double y = (bx * c2 - cx * b2) / twice_area;
  return {ax + x, ay + y, std::sqrt(x * x + y * y)};
}

// Kasa's algebraic fit, about the points' mean.
DiscFitter::Circle DiscFitter::least_squares(const Points& points,
                                             const std::vector<std::uint8_t>& chosen) {
  double count = 0.0, sum_x = 0.0, sum_y = 0.0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (!chosen[i]) continue;
    count += 1.0;
    sum_x += points.x[i];
    sum_y += points.y[i];
  }
  const double mean_x = sum_x / count, mean_y = sum_y / count;
  double uu = 0.0, vv = 0.0, uv = 0.0, su = 0.0, sv = 0.0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (!chosen[i]) continue;
    const double u = points.x[i] - mean_x, v = points.y[i] - mean_y;
    const double square = u * u + v * v;
    uu += u * u;
    vv += v * v;
    uv += u * v;
    su += u * square;
    sv += v * square;
  }
  su /= 2.0;
  sv /= 2.0;
  const double determinant = uu * vv - uv * uv;
  if (determinant < 1e-9) return {};
  const double x = (su * vv - sv * uv) / determinant;
  const double y = (sv * uu - su * uv) / determinant;
  return {mean_x + x, mean_y + y, std::sqrt(x * x + y * y + (uu + vv) / count)};
}

} // namespace fundus
