#include "fundus/gate_figures.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <stdexcept>

namespace fundus {

namespace {

constexpr int kCells = kGateCells;
constexpr std::size_t kCount = std::size_t{kCells} * kCells;
constexpr int kStep = 16;
constexpr int kInside = 8493; // (0.96 * 96) ** 2 in half cells
constexpr int kClipped = 245 * kStep;
constexpr int kFullScale = 255 * kStep;
constexpr int kBends = 2 * 255 + 1;
constexpr std::size_t kLanes = 4;
constexpr std::uint64_t kNoiseToDetail = 90283;

using Values = std::array<int, kCount>;
// Neighbouring pixels count in lanes of their own: they are mostly alike, and adding twice to one
// place in a row waits for the first.
using Histogram = std::array<std::array<std::uint32_t, kLanes>, kBends>;

// Frame columns [begin, end) of each cell, and the frame row through its middle.
struct Lattice {
  std::array<std::int64_t, kCells> rows, begin, end;
};

Lattice lattice_of(const FieldOfView& disc) {
  const std::int64_t width = 2 * std::int64_t{disc.radius_x_px};
  const std::int64_t height = 2 * std::int64_t{disc.radius_y_px};
  const std::int64_t left = std::int64_t{disc.center_x_px} - disc.radius_x_px;
  const std::int64_t top = std::int64_t{disc.center_y_px} - disc.radius_y_px;
  Lattice lattice;
  for (int i = 0; i < kCells; ++i) {
    const auto at = static_cast<std::size_t>(i);
    lattice.rows[at] = top + (2 * i + 1) * height / (2 * kCells);
    lattice.begin[at] = left + i * width / kCells;
    // a disc narrower than the lattice gives a cell the pixel that it lies in
    lattice.end[at] = std::max(left + (i + 1) * width / kCells, lattice.begin[at] + 1);
  }
  return lattice;
}

struct Span {
  int first = 0, end = 0; // cells of a row that lie inside; one run, because the disc is convex
};

Span cells_inside(const Lattice& lattice, int row, int height, int width) {
  const auto y = lattice.rows[static_cast<std::size_t>(row)];
  if (y < 0 || y >= height) return {};
  const int down = 2 * row + 1 - kCells;
  Span span{kCells, 0};
  for (int j = 0; j < kCells; ++j) {
    const int across = 2 * j + 1 - kCells;
    if (down * down + across * across > kInside) continue;
    const auto at = static_cast<std::size_t>(j);
    if (lattice.begin[at] < 0 || lattice.end[at] > width) continue;
    span.first = std::min(span.first, j);
    span.end = j + 1;
  }
  return span.first < span.end ? span : Span{};
}

// A row's pixels; strides as the frame has them, or known to the compiler where pixels are packed.
struct PixelRow {
  const std::uint8_t* data;
  std::ptrdiff_t pixel_stride, channel_stride;
};

std::uint16_t mean_level(std::uint32_t sum, std::int64_t count) {
  return static_cast<std::uint16_t>((2 * kStep * std::int64_t{sum} + count) / (2 * count));
}

// Two pixels of packed samples and the two samples after them, as a vector of GCC and Clang.
using Bytes __attribute__((vector_size(8))) = std::uint8_t;
using Pair __attribute__((vector_size(16))) = std::uint16_t;
// So many pairs add up to less than 2^16 in every sample.
constexpr std::int64_t kMostPairs = 257;

Pair pair_at(const std::uint8_t* at) {
  Bytes bytes;
  __builtin_memcpy(&bytes, at, sizeof bytes);
  return __builtin_convertvector(bytes, Pair);
}

// Adds up packed pixels two by two, as long as one more follows; how many pixels that were.
std::int64_t add_pairs(const std::uint8_t* at, std::int64_t count, std::uint32_t* sums) {
  const std::int64_t pairs = std::min((count - 1) / 2, kMostPairs);
  Pair total = {};
  for (std::int64_t k = 0; k < pairs; ++k, at += 6) total += pair_at(at);
  for (int channel = 0; channel < 3; ++channel)
    sums[channel] = std::uint32_t{total[channel]} + total[channel + 3];
  return 2 * pairs;
}

template <bool packed>
void average_cell(const PixelRow& row, std::int64_t begin, std::int64_t end, int first_channel,
                  std::uint16_t* levels) {
  const std::ptrdiff_t pixel = packed ? 3 : row.pixel_stride;
  const std::ptrdiff_t channel = packed ? 1 : row.channel_stride;
  std::uint32_t sums[3] = {0, 0, 0};
  const std::int64_t added =
      packed ? add_pairs(row.data + begin * pixel, end - begin, sums) : std::int64_t{0};
  const std::uint8_t* at = row.data + (begin + added) * pixel;
  for (std::int64_t x = begin + added; x < end; ++x, at += pixel) {
    sums[0] += at[0];
    sums[1] += at[channel];
    sums[2] += at[2 * channel];
  }
  const std::int64_t count = end - begin;
  levels[first_channel] = mean_level(sums[0], count);
  levels[1] = mean_level(sums[1], count);
  levels[2 - first_channel] = mean_level(sums[2], count);
}

// Second differences of green over [begin, end).
template <bool packed>
void count_bends(const PixelRow& row, std::int64_t begin, std::int64_t end, Histogram& bends) {
  const std::ptrdiff_t pixel = packed ? 3 : row.pixel_stride;
  const std::uint8_t* at = row.data + begin * pixel + (packed ? 1 : row.channel_stride);
  const auto count_bend = [&](std::size_t lane) {
    ++bends[static_cast<std::size_t>(std::abs(2 * at[pixel] - at[0] - at[2 * pixel]))][lane];
    at += pixel;
  };
  std::int64_t left = end - begin - 2;
  for (; left >= std::int64_t{kLanes}; left -= std::int64_t{kLanes})
    for (std::size_t lane = 0; lane < kLanes; ++lane) count_bend(lane);
  for (; left > 0; --left) count_bend(0);
}

// `next` is asked for ahead: it lies far off, and memory takes longer than what is done with a row.
template <bool packed>
void read_row(const PixelRow& row, const std::uint8_t* next, const Lattice& lattice, Span span,
              int first_channel, std::uint16_t* levels, Histogram& bends) {
  for (int j = span.first; j < span.end; ++j) {
    const auto at = static_cast<std::size_t>(j);
    __builtin_prefetch(next + lattice.begin[at] * row.pixel_stride);
    average_cell<packed>(row, lattice.begin[at], lattice.end[at], first_channel, levels + 3 * at);
  }
  count_bends<packed>(row, lattice.begin[static_cast<std::size_t>(span.first)],
                      lattice.end[static_cast<std::size_t>(span.end - 1)], bends);
}

void read_cells(const FrameView& given, const FieldOfView& disc, GateCells& cells,
                Histogram& bends) {
  const FrameView frame = with_forward_channels(given);
  const Lattice lattice = lattice_of(disc);
  const bool packed = frame.pixel_stride_bytes == 3 && frame.channel_stride_bytes == 1;
  const int first_channel = frame.color == ColorOrder::rgb ? 0 : 2;
  for (int i = 0; i < kCells; ++i) {
    const Span span = cells_inside(lattice, i, frame.height, frame.width);
    if (span.first == span.end) continue;
    const auto at = static_cast<std::size_t>(i) * kCells;
    std::fill(cells.inside.data() + at + span.first, cells.inside.data() + at + span.end,
              std::uint8_t{1});
    const auto row_at = [&](std::size_t k) {
      return frame.data +
             std::min<std::int64_t>(lattice.rows[k], frame.height - 1) * frame.row_stride_bytes;
    };
    const auto own = static_cast<std::size_t>(i);
    const PixelRow row{row_at(own), frame.pixel_stride_bytes, frame.channel_stride_bytes};
    const std::uint8_t* const next = row_at(std::min<std::size_t>(own + 1, kCells - 1));
    const auto read = packed ? read_row<true> : read_row<false>;
    read(row, next, lattice, span, first_channel, cells.levels.data() + 3 * at, bends);
  }
}

// The value of that rank of the first `count`, nought of none. They are levels or differences of
// two, few enough to be counted.
int ranked(const Values& values, std::size_t count, int permille) {
  if (count == 0) return 0;
  std::array<std::uint16_t, 2 * kFullScale + 1> found{};
  for (std::size_t k = 0; k < count; ++k) {
    ++found[static_cast<std::size_t>(values[k] + kFullScale)];
  }
  const std::size_t rank = (count - 1) * static_cast<std::size_t>(permille) / 1000;
  std::size_t at = 0;
  for (std::size_t seen = found[0]; seen <= rank; seen += found[at]) ++at;
  return static_cast<int>(at) - kFullScale;
}

template <typename Level>
std::size_t gather(const GateCells& cells, Values& values, Level level) {
  std::size_t count = 0;
  for (std::size_t k = 0; k < kCount; ++k) {
    if (cells.inside[k] != 0) values[count++] = level(cells.levels.data() + 3 * k);
  }
  return count;
}

int permille_of(std::size_t part, std::size_t whole) {
  return static_cast<int>(1000 * part / std::max<std::size_t>(whole, 1));
}

template <typename Holds>
int permille_where(const Values& values, std::size_t count, Holds holds) {
  const auto end = values.begin() + static_cast<std::ptrdiff_t>(count);
  return permille_of(static_cast<std::size_t>(std::count_if(values.begin(), end, holds)), count);
}

bool whole_neighbourhood(const GateCells& cells, std::size_t k) {
  for (const std::size_t row : {k - kCells, k, k + kCells}) {
    if ((cells.inside[row - 1] & cells.inside[row] & cells.inside[row + 1]) == 0) return false;
  }
  return true;
}

// How much darker in green a cell is than both neighbours along the direction where that is most.
int depth(const GateCells& cells, std::size_t k) {
  const auto green = [&](std::size_t at) { return int{cells.levels[3 * at + 1]}; };
  int brighter = 0;
  for (const std::size_t step :
       {std::size_t{1}, std::size_t{kCells - 1}, std::size_t{kCells}, std::size_t{kCells + 1}}) {
    brighter = std::max(brighter, std::min(green(k - step), green(k + step)));
  }
  return std::max(brighter - green(k), 0);
}

int detail_of(const GateCells& cells, Values& values) {
  std::size_t count = 0;
  for (std::size_t i = 1; i + 1 < kCells; ++i) {
    for (std::size_t j = 1; j + 1 < kCells; ++j) {
      const std::size_t k = i * kCells + j;
      if (cells.inside[k] != 0 && whole_neighbourhood(cells, k)) values[count++] = depth(cells, k);
    }
  }
  return ranked(values, count, 970);
}

std::uint64_t square_root(std::uint64_t value) {
  auto root = static_cast<std::uint64_t>(std::sqrt(static_cast<double>(value)));
  while (root * root > value) --root;
  while ((root + 1) * (root + 1) <= value) ++root;
  return root;
}

// What the smaller three quarters of the second differences say; the reference derives the factor.
int noise_of(const Histogram& bends, int radius_x_px) {
  std::array<std::uint64_t, kBends> counts;
  std::transform(bends.begin(), bends.end(), counts.begin(), [](const auto& lanes) {
    return std::accumulate(lanes.begin(), lanes.end(), std::uint64_t{0});
  });
  const std::uint64_t total = std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
  const std::uint64_t keep = total * 3 / 4;
  if (keep == 0) return 0;
  std::uint64_t left = keep, sum = 0;
  for (std::size_t bend = 0; bend < counts.size() && left > 0; ++bend) {
    const std::uint64_t kept = std::min(counts[bend], left);
    sum += kept * bend;
    left -= kept;
  }
  const std::uint64_t hundredths = 100 * sum / keep;
  const std::uint64_t width = 2 * static_cast<std::uint64_t>(radius_x_px);
  return static_cast<int>(square_root(kNoiseToDetail * hundredths * hundredths / (10000 * width)));
}

void require_disc(const FieldOfView& disc) {
  const int small = std::min(disc.radius_x_px, disc.radius_y_px);
  const int large = std::max(disc.radius_x_px, disc.radius_y_px);
  if (small < 1 || large > kMaxGateRadiusPx) {
    throw std::invalid_argument("the field of view has no extent, or one beyond any frame");
  }
}

} // namespace

GateReadings measure_gates(const FrameView& frame, const FieldOfView& disc, GateCells& cells) {
  require_frame(frame);
  require_disc(disc);
  cells.levels.fill(0);
  cells.inside.fill(0);
  Histogram bends{};
  read_cells(frame, disc, cells, bends);

  Values values;
  GateReadings readings;
  const std::size_t count = gather(cells, values, [](auto rgb) { return int{rgb[2]}; });
  readings.cells = static_cast<int>(count);
  readings.blue = ranked(values, count, 500);
  gather(cells, values, [](auto rgb) { return int{rgb[1]}; });
  readings.clipped_permille =
      permille_where(values, count, [](int green) { return green >= kClipped; });
  readings.green = ranked(values, count, 500);
  gather(cells, values, [](auto rgb) { return rgb[0] - rgb[2]; });
  readings.red_over_blue = ranked(values, count, 900);
  gather(cells, values, [](auto rgb) { return int{rgb[0]}; });
  readings.red = ranked(values, count, 500);
  const int bright = ranked(values, count, 800);
  readings.shaded_permille =
      permille_where(values, count, [&](int red) { return 5 * red < 2 * bright; });
  readings.detail = detail_of(cells, values);
  readings.noise = noise_of(bends, disc.radius_x_px);
  return readings;
}

} // namespace fundus
