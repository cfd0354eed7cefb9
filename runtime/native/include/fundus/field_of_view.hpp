// The field of view: the bright disc that a fundus camera leaves on a dark surround. Integer sums
// and IEEE doubles in a fixed order, so that the result equals that of the Python reference
// (fundus_runtime.preprocess.field_of_view) in every integer and every refusal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "fundus/frame.hpp"

namespace fundus {

// In whole frame pixels; see the reference for the meaning of each field.
struct FieldOfView {
  int center_x_px = 0;
  int center_y_px = 0;
  int radius_x_px = 0;
  int radius_y_px = 0;
  int rim_permille = 0;
  int visible_permille = 0;
};

inline constexpr int kMinDiscPx = 64;

// Why there is no usable field of view. Static storage; an empty reason means that there is one.
struct Refusal {
  std::string_view reason; // "no_fundus", "no_field_of_view" or "field_of_view_too_small"
  std::string_view detail; // what the disc fails in, where the reason leaves it open
  explicit operator bool() const noexcept { return !reason.empty(); }
};

struct FieldOfViewResult {
  Refusal refusal;
  FieldOfView field; // set where there is no refusal, and where the disc is too small
};

// Plain strided samples of a frame, 128 to 255 on the shorter side.
struct Thumbnail {
  int stride = 0;
  int height = 0;
  int width = 0;
  std::vector<std::uint8_t> rgb;        // height x width x 3, red first whatever the frame's order
  std::vector<std::uint8_t> brightness; // height x width, the largest of the three channels
};

// Distance in frame pixels between two samples; the first one lies at stride / 2.
int thumbnail_stride(int height, int width) noexcept;

// How many samples a side of `length` frame pixels has.
int thumbnail_length(int length, int stride) noexcept;

// Reuses the vectors of `thumbnail`: allocates only where they are too small.
void gather_thumbnail(const FrameView& frame, Thumbnail& thumbnail);

// Finds the disc from a thumbnail alone, wherever that was gathered. Keeps its working memory: no
// allocation after the first thumbnail of a size. One finder serves one thread at a time.
class FieldOfViewFinder {
 public:
  FieldOfViewFinder();
  ~FieldOfViewFinder();
  FieldOfViewFinder(FieldOfViewFinder&&) noexcept;
  FieldOfViewFinder& operator=(FieldOfViewFinder&&) noexcept;

  // `brightness` is thumb_height x thumb_width, packed, sampled with `stride` from a frame of
  // frame_height x frame_width. Also refuses a disc that is too small to resample.
  FieldOfViewResult find(const std::uint8_t* brightness, int thumb_height, int thumb_width,
                         int stride, int frame_height, int frame_width);

 private:
  struct Workspace;
  std::unique_ptr<Workspace> work_;
};

// The same with working memory of its own.
FieldOfViewResult find_field_of_view(const std::uint8_t* brightness, int thumb_height,
                                     int thumb_width, int stride, int frame_height,
                                     int frame_width);

} // namespace fundus
