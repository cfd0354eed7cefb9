// Kernel 2: the crop, resampled by area in whole numbers, and its mask.
//
// A block makes `tile_columns` output pixels of one output row. Its threads own four neighbouring
// bytes of the source each, add up their column over the rows that the output row covers (each byte
// of the frame is read once, but for rows and columns that two outputs share), and leave the sums
// in shared memory, from which one thread per output channel adds up its columns. Sources wider
// than a segment come in several. Nothing is rounded before the one division at the end.
#pragma once

#include <cstdint>

#include "fundus/cuda/frame_samples.hpp"
#include "fundus/cuda/host_device.hpp"
#include "fundus/geometry.hpp"
#include "fundus/spec.hpp"

namespace fundus::cuda {

inline constexpr int kResampleThreads = 256;
// Three bytes a pixel and up to three to start at a whole word, in four bytes a thread.
inline constexpr int kSegmentPx = (4 * kResampleThreads - 3) / 3;
inline constexpr int kRowsInFlight = 4;
inline constexpr int kMaxTileColumns = kResampleThreads / 3;

struct ResampleArguments {
  FrameSamples frame;
  CropBox box;
  AreaAxis row_axis;
  AreaAxis column_axis;
  const AreaTap* row_taps = nullptr; // size of them, in pixels of the box
  const AreaTap* column_taps = nullptr;
  bool half_up = false;
  int size = 0;
  int crop_permille = 0;
  int mask_permille = 0;
  int tile_columns = 0;
  std::uint8_t* crop = nullptr; // size x size x 4: red, green, blue, inside the mask (1 or 0)
};

// How many output columns a block makes: as many as one segment feeds.
inline int tile_columns_of(const AreaAxis& columns, int size) {
  const std::int64_t fits = static_cast<std::int64_t>(kSegmentPx - 2) * columns.unit /
                            larger<std::uint32_t>(columns.total, 1);
  const auto limit = static_cast<int>(
      smaller<std::int64_t>(larger<std::int64_t>(fits, 1), smaller(kMaxTileColumns, size)));
  const int tiles = divided_up(size, limit);
  return divided_up(size, tiles); // tiles of one size
}

// Everything but where taps and crop lie for the kernel; fills `taps`, 2 x size of them: the rows',
// then the columns'.
inline ResampleArguments resample_arguments(const FrameSamples& frame, const CropBox& box,
                                            const PreprocessSpec& spec, AreaTap* taps) {
  ResampleArguments arguments;
  arguments.frame = frame;
  arguments.box = box;
  arguments.row_axis = area_axis(box.height_px(), spec.size);
  arguments.column_axis = area_axis(box.width_px(), spec.size);
  arguments.half_up = rounds_half_up(arguments.row_axis, arguments.column_axis);
  arguments.size = spec.size;
  arguments.crop_permille = spec.crop_permille;
  arguments.mask_permille = spec.mask_permille;
  arguments.tile_columns = tile_columns_of(arguments.column_axis, spec.size);
  for (int i = 0; i < spec.size; ++i) {
    taps[i] = area_tap(arguments.row_axis, i);
    taps[spec.size + i] = area_tap(arguments.column_axis, i);
  }
  return arguments;
}

// The output pixels of a block and the box columns that they are made of.
struct Tile {
  int row = 0;
  int first_column = 0;
  int columns = 0;
  std::int64_t source_begin = 0; // in pixels of the box
  std::int64_t source_end = 0;
};

FUNDUS_HOST_DEVICE inline Tile tile_of(const ResampleArguments& arguments, int block_column,
                                       int block_row) {
  Tile tile;
  tile.row = block_row;
  tile.first_column = block_column * arguments.tile_columns;
  tile.columns = smaller(arguments.tile_columns, arguments.size - tile.first_column);
  tile.source_begin = arguments.column_taps[tile.first_column].first;
  tile.source_end = arguments.column_taps[tile.first_column + tile.columns - 1].last + 1;
  return tile;
}

FUNDUS_HOST_DEVICE inline int segments_of(const Tile& tile) {
  return static_cast<int>(
      divided_up<std::int64_t>(tile.source_end - tile.source_begin, kSegmentPx));
}

FUNDUS_HOST_DEVICE inline std::int64_t segment_begin(const Tile& tile, int segment) {
  return tile.source_begin + static_cast<std::int64_t>(segment) * kSegmentPx;
}

FUNDUS_HOST_DEVICE inline std::uint32_t weight_of(const AreaTap& tap, const AreaAxis& axis,
                                                  std::int64_t index) {
  if (index == tap.first) return tap.first_weight;
  return index == tap.last ? tap.last_weight : axis.unit;
}

// Where a segment's bytes begin in shared memory: its first word starts at a whole word of the
// frame's first row, and of every other one where the rows' stride is a whole number of words.
FUNDUS_HOST_DEVICE inline int lead_bytes(const ResampleArguments& arguments, std::int64_t begin) {
  if (!is_packed(arguments.frame)) return 0;
  const std::int64_t offset = 3 * (arguments.box.left_px + begin);
  return static_cast<int>(misalignment(arguments.frame.data + offset));
}

// The frame rows of an output row, without those beyond the frame.
struct RowSpan {
  AreaTap tap;
  std::int64_t begin = 0; // in pixels of the box
  std::int64_t end = 0;
};

FUNDUS_HOST_DEVICE inline RowSpan rows_of(const ResampleArguments& arguments, int output_row) {
  RowSpan rows;
  rows.tap = arguments.row_taps[output_row];
  const std::int64_t top = arguments.box.top_px;
  rows.begin = larger<std::int64_t>(rows.tap.first, -top);
  rows.end = smaller<std::int64_t>(rows.tap.last + 1, arguments.frame.height - top);
  return rows;
}

// Adds four weighted bytes to four sums.
FUNDUS_HOST_DEVICE inline void add_weighted(std::uint32_t word, std::uint32_t weight,
                                            std::uint32_t* sum) {
  FUNDUS_UNROLL
  for (int k = 0; k < 4; ++k) sum[k] += weight * (word >> (8 * k) & 0xFFU);
}

// The same four bytes of every row, read in words, some rows at a time.
FUNDUS_HOST_DEVICE inline void add_rows(const ResampleArguments& arguments, const RowSpan& rows,
                                        std::int64_t offset, std::uint32_t* sum) {
  for (std::int64_t row = rows.begin; row < rows.end; row += kRowsInFlight) {
    FourBytes bytes[kRowsInFlight];
    FUNDUS_UNROLL
    for (int k = 0; k < kRowsInFlight; ++k) {
      const std::int64_t inside = smaller<std::int64_t>(row + k, rows.end - 1);
      bytes[k] = load_four(row_of(arguments.frame, arguments.box.top_px + inside) + offset);
    }
    FUNDUS_UNROLL
    for (int k = 0; k < kRowsInFlight; ++k) {
      if (row + k >= rows.end) break;
      add_weighted(word_of(bytes[k]), weight_of(rows.tap, arguments.row_axis, row + k), sum);
    }
  }
}

// The same where the frame or the tile ends within those bytes or beside them.
FUNDUS_HOST_DEVICE inline void add_edge_rows(const ResampleArguments& arguments,
                                             const RowSpan& rows, std::int64_t offset,
                                             std::int64_t end, std::uint32_t* sum) {
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const std::uint8_t* source = row_of(arguments.frame, arguments.box.top_px + row);
    const std::uint32_t weight = weight_of(rows.tap, arguments.row_axis, row);
    add_weighted(load_edge(source, offset, end), weight, sum);
  }
}

// Step 1 of packed frames: four bytes a thread, summed over the rows into sums[4 * thread ...].
FUNDUS_HOST_DEVICE inline void sum_packed_rows(const ResampleArguments& arguments, const Tile& tile,
                                               int segment, int thread, std::uint32_t* sums) {
  const std::int64_t begin = segment_begin(tile, segment);
  const std::int64_t left = arguments.box.left_px;
  const std::int64_t offset = 3 * (left + begin) - lead_bytes(arguments, begin) + 4 * thread;
  const std::int64_t last = smaller<std::int64_t>(tile.source_end, begin + kSegmentPx);
  const std::int64_t end = 3 * smaller<std::int64_t>(left + last, arguments.frame.width);
  const RowSpan rows = rows_of(arguments, tile.row);
  std::uint32_t sum[4] = {0, 0, 0, 0};
  if (readable_in_words(offset, end)) {
    add_rows(arguments, rows, offset, sum);
  } else if (offset > -4 && offset < end) {
    add_edge_rows(arguments, rows, offset, end, sum);
  }
  for (int k = 0; k < 4; ++k) sums[4 * thread + k] = sum[k];
}

// Step 1 of any other layout: whole pixels a thread, into sums[3 * pixel ...].
FUNDUS_HOST_DEVICE inline void sum_strided_rows(const ResampleArguments& arguments,
                                                const Tile& tile, int segment, int thread,
                                                std::uint32_t* sums) {
  const FrameSamples& frame = arguments.frame;
  const RowSpan rows = rows_of(arguments, tile.row);
  const std::int64_t begin = segment_begin(tile, segment);
  for (int pixel = thread; pixel < kSegmentPx; pixel += kResampleThreads) {
    const std::int64_t column = arguments.box.left_px + begin + pixel;
    const bool needed = begin + pixel < tile.source_end && column >= 0 && column < frame.width;
    std::uint32_t sum[3] = {0, 0, 0};
    for (std::int64_t row = needed ? rows.begin : rows.end; row < rows.end; ++row) {
      const std::uint32_t weight = weight_of(rows.tap, arguments.row_axis, row);
      const std::uint8_t* source =
          row_of(frame, arguments.box.top_px + row) + column * frame.pixel_stride_bytes;
      for (int c = 0; c < 3; ++c) sum[c] += weight * source[c * frame.channel_stride_bytes];
    }
    for (int c = 0; c < 3; ++c) sums[3 * pixel + c] = sum[c];
  }
}

// Step 2: what a segment adds to the output channel of a thread; 0 for threads that have none.
FUNDUS_HOST_DEVICE inline std::uint64_t sum_columns(const ResampleArguments& arguments,
                                                    const Tile& tile, int segment, int thread,
                                                    const std::uint32_t* sums) {
  if (thread >= 3 * tile.columns) return 0;
  const AreaTap tap = arguments.column_taps[tile.first_column + thread / 3];
  const std::int64_t begin = segment_begin(tile, segment);
  const int lead = lead_bytes(arguments, begin) + frame_channel(arguments.frame, thread % 3);
  const auto first = static_cast<int>(larger<std::int64_t>(tap.first, begin));
  const auto last = static_cast<int>(smaller<std::int64_t>(tap.last, begin + kSegmentPx - 1));
  std::uint64_t total = 0;
  for (int column = first; column <= last; ++column) {
    const std::uint64_t weight = weight_of(tap, arguments.column_axis, column);
    total += weight * sums[lead + 3 * static_cast<int>(column - begin)];
  }
  return total;
}

// sum / area to the nearest whole level, ties to even or up.
template <typename Unsigned>
FUNDUS_HOST_DEVICE inline Unsigned rounded_mean(Unsigned sum, Unsigned area, bool half_up) {
  const Unsigned level = sum / area;
  const Unsigned rest = sum - level * area;
  const Unsigned to_next = area - rest; // compared without doubling, which could overflow
  const bool up = rest > to_next || (rest == to_next && (half_up || (level & 1U) != 0));
  return level + (up ? 1U : 0U);
}

FUNDUS_HOST_DEVICE inline std::uint8_t level_of(std::uint64_t sum, std::uint64_t area,
                                                bool half_up) {
  // a GPU divides 32 bits several times faster, and they hold any crop up to 4,000 px
  if (area <= 0xFFFFFFFFU / 255U) {
    return static_cast<std::uint8_t>(
        rounded_mean(static_cast<std::uint32_t>(sum), static_cast<std::uint32_t>(area), half_up));
  }
  return static_cast<std::uint8_t>(rounded_mean(sum, area, half_up));
}

// As fundus::fill_mask: the disc's inscribed circle, without what draws on beyond the frame.
FUNDUS_HOST_DEVICE inline bool inside_mask(const ResampleArguments& arguments, int row,
                                           int column) {
  const std::int64_t size = arguments.size;
  const std::int64_t down = (2 * row + 1 - size) * arguments.crop_permille;
  const std::int64_t across = (2 * column + 1 - size) * arguments.crop_permille;
  const std::int64_t reach = size * arguments.mask_permille;
  if (down * down + across * across > reach * reach) return false;
  const CropBox& box = arguments.box;
  const std::int64_t height = static_cast<std::int64_t>(box.bottom_px) - box.top_px;
  const std::int64_t width = static_cast<std::int64_t>(box.right_px) - box.left_px;
  const std::int64_t top = box.top_px * size + row * height;
  const std::int64_t left = box.left_px * size + column * width;
  return top >= 0 && left >= 0 && top + height <= arguments.frame.height * size &&
         left + width <= arguments.frame.width * size;
}

// Step 3: the level, and with the red one the mask.
FUNDUS_HOST_DEVICE inline void store_level(const ResampleArguments& arguments, const Tile& tile,
                                           int thread, std::uint64_t sum) {
  if (thread >= 3 * tile.columns) return;
  const int column = tile.first_column + thread / 3;
  const std::uint64_t area =
      static_cast<std::uint64_t>(arguments.row_axis.total) * arguments.column_axis.total;
  const std::int64_t pixel = static_cast<std::int64_t>(tile.row) * arguments.size + column;
  std::uint8_t* crop = arguments.crop + 4 * pixel;
  crop[thread % 3] = level_of(sum, area, arguments.half_up);
  if (thread % 3 == 0) crop[3] = inside_mask(arguments, tile.row, column) ? 1 : 0;
}

} // namespace fundus::cuda
