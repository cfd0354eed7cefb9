#include "component.hpp"

#include <algorithm>
#include <array>
#include <cstddef>

namespace fundus {

namespace {

constexpr int kThresholdFloor = 12, kThresholdCeiling = 32;

} // namespace

int bright_threshold(const std::uint8_t* brightness, int count) noexcept {
  std::array<int, 256> histogram{};
  for (int i = 0; i < count; ++i) ++histogram[brightness[i]];
  const std::int64_t rank = (static_cast<std::int64_t>(count) * 95 + 99) / 100;
  int percentile = 0;
  std::int64_t seen = histogram[0];
  while (seen < rank) seen += histogram[static_cast<std::size_t>(++percentile)];
  return std::clamp(percentile / 6, kThresholdFloor, kThresholdCeiling);
}

void LargestComponent::find(const std::uint8_t* brightness, int height, int width, int threshold) {
  collect_runs(brightness, height, width, threshold);
  connect_rows();
  keep_largest();
}

void LargestComponent::collect_runs(const std::uint8_t* brightness, int height, int width,
                                    int threshold) {
  runs_.clear();
  // A chessboard has the most.
  const auto most = static_cast<std::size_t>(height) * (static_cast<std::size_t>(width) / 2 + 1);
  runs_.reserve(most);
  areas_.reserve(most);
  for (int y = 0; y < height; ++y) {
    const std::uint8_t* row = brightness + static_cast<std::ptrdiff_t>(y) * width;
    int x = 0;
    while (true) {
      while (x < width && row[x] <= threshold) ++x;
      if (x == width) break;
      const int begin = x;
      while (x < width && row[x] > threshold) ++x;
      runs_.push_back({y, begin, x, static_cast<int>(runs_.size())});
    }
  }
}

int LargestComponent::root_of(int run) {
  while (true) {
    Run& here = runs_[static_cast<std::size_t>(run)];
    if (here.root == run) return run;
    here.root = runs_[static_cast<std::size_t>(here.root)].root; // halves the path
    run = here.root;
  }
}

void LargestComponent::connect_rows() {
  std::size_t above = 0;
  for (std::size_t here = 0; here < runs_.size(); ++here) {
    const Run& run = runs_[here];
    while (runs_[above].row < run.row - 1 ||
           (runs_[above].row == run.row - 1 && runs_[above].end <= run.begin))
      ++above;
    // The last one may also touch the next run of this row.
    for (std::size_t other = above; runs_[other].row == run.row - 1 && runs_[other].begin < run.end;
         ++other) {
      const int a = root_of(static_cast<int>(here)), b = root_of(static_cast<int>(other));
      runs_[static_cast<std::size_t>(std::max(a, b))].root = std::min(a, b);
    }
  }
}

void LargestComponent::keep_largest() {
  areas_.assign(runs_.size(), 0);
  for (std::size_t i = 0; i < runs_.size(); ++i)
    areas_[static_cast<std::size_t>(root_of(static_cast<int>(i)))] += runs_[i].end - runs_[i].begin;
  const auto largest = std::max_element(areas_.begin(), areas_.end());
  area_ = largest == areas_.end() ? 0 : *largest;
  const int root = static_cast<int>(largest - areas_.begin());
  // The roots must all be known before the first run moves.
  for (std::size_t i = 0; i < runs_.size(); ++i) areas_[i] = root_of(static_cast<int>(i));
  std::size_t kept = 0;
  for (std::size_t i = 0; i < runs_.size(); ++i)
    if (areas_[i] == root) runs_[kept++] = runs_[i];
  runs_.resize(kept);
}

} // namespace fundus
