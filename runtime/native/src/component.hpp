// The largest bright component of a thumbnail, as runs of samples, and its outermost samples.
#pragma once

#include <cstdint>
#include <vector>

namespace fundus {

// Samples begin to end - 1 of one row; `root` is the first run, in reading order, of its component.
struct Run {
  int row;
  int begin;
  int end;
  int root;
};

// Keeps its memory: no allocation after the first thumbnail of a size.
class LargestComponent {
 public:
  // The largest 4-connected component brighter than the threshold; of equals the first in reading
  // order. Afterwards runs() and area() are its own; both are empty where nothing is brighter.
  void find(const std::uint8_t* brightness, int height, int width, int threshold);

  const std::vector<Run>& runs() const noexcept { return runs_; }
  int area() const noexcept { return area_; }

 private:
  void collect_runs(const std::uint8_t* brightness, int height, int width, int threshold);
  void connect_rows();
  int root_of(int run);
  void keep_largest();

  std::vector<Run> runs_;
  std::vector<int> areas_;
  int area_ = 0;
};

// A sixth of the 95th percentile, kept between sensor noise and a dim retina.
int bright_threshold(const std::uint8_t* brightness, int count) noexcept;

} // namespace fundus
