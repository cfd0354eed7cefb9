#include "fundus/field_of_view.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "component.hpp"
#include "disc_fit.hpp"

namespace fundus {

namespace {

constexpr int kMinThumbnail = 128;
constexpr int kMinRimPoints = 24;
constexpr double kMinConsensus = 0.45;
constexpr int kSectors = 24, kMinSectors = 6;
constexpr int kMinBrightPercent = 25;

constexpr Refusal kNoFundus{"no_fundus", ""};

constexpr Refusal not_a_disc(std::string_view why) {
  return {"no_field_of_view", why};
}

int round_half_up(double value) {
  return static_cast<int>(std::floor(value + 0.5));
}

int visible_permille(const FieldOfView& field, int height, int width) {
  const auto visible = [](int center, int radius, int limit) {
    return std::max<std::int64_t>(std::min(center + radius, limit) - std::max(center - radius, 0),
                                  0);
  };
  const std::int64_t across = visible(field.center_x_px, field.radius_x_px, width);
  const std::int64_t down = visible(field.center_y_px, field.radius_y_px, height);
  const std::int64_t whole = std::int64_t{4} * field.radius_x_px * field.radius_y_px;
  return static_cast<int>(1000 * across * down / whole);
}

int sectors_seen(const Points& rim, const std::vector<std::uint8_t>& agrees, const Disc& disc) {
  std::array<bool, kSectors> seen{};
  for (std::size_t i = 0; i < rim.size(); ++i) {
    if (!agrees[i]) continue;
    const double turn =
        turn_of((rim.x[i] - disc.x) / disc.radius_x, (rim.y[i] - disc.y) / disc.radius_y);
    const int sector = static_cast<int>(std::floor(turn * (kSectors / 4))) % kSectors;
    seen[static_cast<std::size_t>(sector)] = true;
  }
  return static_cast<int>(std::count(seen.begin(), seen.end(), true));
}

} // namespace

int thumbnail_stride(int height, int width) noexcept {
  return std::max(1, std::min(height, width) / kMinThumbnail);
}

int thumbnail_length(int length, int stride) noexcept {
  const int start = stride / 2;
  return length > start ? (length - start + stride - 1) / stride : 0;
}

void gather_thumbnail(const FrameView& original, Thumbnail& thumbnail) {
  const FrameView frame = with_forward_channels(original);
  const int stride = thumbnail_stride(frame.height, frame.width);
  thumbnail.stride = stride;
  thumbnail.height = thumbnail_length(frame.height, stride);
  thumbnail.width = thumbnail_length(frame.width, stride);
  const auto count =
      static_cast<std::size_t>(thumbnail.height) * static_cast<std::size_t>(thumbnail.width);
  thumbnail.rgb.resize(3 * count);
  thumbnail.brightness.resize(count);
  const std::ptrdiff_t channel = frame.channel_stride_bytes;
  const std::ptrdiff_t red = frame.color == ColorOrder::rgb ? 0 : 2 * channel;
  const std::ptrdiff_t blue = 2 * channel - red;
  std::uint8_t* rgb = thumbnail.rgb.data();
  std::uint8_t* brightness = thumbnail.brightness.data();
  const std::ptrdiff_t step = stride * frame.pixel_stride_bytes;
  for (int y = 0; y < thumbnail.height; ++y) {
    const std::ptrdiff_t row = stride / 2 + static_cast<std::ptrdiff_t>(y) * stride;
    const std::uint8_t* pixel =
        frame.data + row * frame.row_stride_bytes + (stride / 2) * frame.pixel_stride_bytes;
    for (int x = 0; x < thumbnail.width; ++x, rgb += 3) {
      const std::uint8_t* const sample = pixel + x * step;
      rgb[0] = sample[red];
      rgb[1] = sample[channel];
      rgb[2] = sample[blue];
      *brightness++ = std::max(std::max(rgb[0], rgb[1]), rgb[2]);
    }
  }
}

struct FieldOfViewFinder::Workspace {
  LargestComponent component;
  RimTracer tracer;
  Points rim;
  DiscFitter fitter;
  std::vector<double> squares; // of the columns' distances from the centre, in radii

  Refusal require_plausible(const Disc& disc, int height, int width);
  Refusal require_bright_inside(const Disc& disc, int height, int width);
};

FieldOfViewFinder::FieldOfViewFinder() : work_(std::make_unique<Workspace>()) {}
FieldOfViewFinder::~FieldOfViewFinder() = default;
FieldOfViewFinder::FieldOfViewFinder(FieldOfViewFinder&&) noexcept = default;
FieldOfViewFinder& FieldOfViewFinder::operator=(FieldOfViewFinder&&) noexcept = default;

FieldOfViewResult FieldOfViewFinder::find(const std::uint8_t* brightness, int thumb_height,
                                          int thumb_width, int stride, int frame_height,
                                          int frame_width) {
  const int count = thumb_height * thumb_width;
  LargestComponent& component = work_->component;
  component.find(brightness, thumb_height, thumb_width, bright_threshold(brightness, count));
  if (component.area() == 0 || std::int64_t{50} * component.area() < count) return {kNoFundus, {}};
  work_->tracer.trace(component, thumb_height, thumb_width, work_->rim);
  const auto rim_size = static_cast<int>(work_->rim.size());
  if (rim_size < kMinRimPoints) return {not_a_disc("the frame is filled to its borders"), {}};
  work_->fitter.reserve(2 * static_cast<std::size_t>(thumb_height + thumb_width));
  const Disc disc = work_->fitter.fit(work_->rim);
  const Refusal refusal = work_->require_plausible(disc, thumb_height, thumb_width);
  if (refusal) return {refusal, {}};

  const double to_px = stride / 2.0; // rim coordinates count half thumbnail cells
  FieldOfView field;
  field.center_x_px = round_half_up(disc.x * to_px);
  field.center_y_px = round_half_up(disc.y * to_px);
  field.radius_x_px = std::max(round_half_up(disc.radius_x * to_px), 1);
  field.radius_y_px = std::max(round_half_up(disc.radius_y * to_px), 1);
  field.rim_permille = static_cast<int>(std::int64_t{1000} * work_->fitter.agreeing() / rim_size);
  field.visible_permille = visible_permille(field, frame_height, frame_width);
  if (2 * std::min(field.radius_x_px, field.radius_y_px) < kMinDiscPx)
    return {{"field_of_view_too_small", ""}, field};
  return {{}, field};
}

Refusal FieldOfViewFinder::Workspace::require_plausible(const Disc& disc, int thumb_height,
                                                        int thumb_width) {
  const double height = 2.0 * thumb_height, width = 2.0 * thumb_width;
  const double least =
      std::max<double>(kMinRimPoints, kMinConsensus * static_cast<double>(rim.size()));
  if (fitter.agreeing() < least) return not_a_disc("its outline is not round");
  if (!(0.0 < disc.x && disc.x < width && 0.0 < disc.y && disc.y < height))
    return not_a_disc("its outline curves around a point outside the frame");
  if (2.0 * std::min(disc.radius_x, disc.radius_y) > 1.6 * std::max(height, width))
    return not_a_disc("its outline is nearly straight");
  if (sectors_seen(rim, fitter.agrees(), disc) < kMinSectors)
    return not_a_disc("too little of its edge is visible");
  return require_bright_inside(disc, thumb_height, thumb_width);
}

Refusal FieldOfViewFinder::Workspace::require_bright_inside(const Disc& disc, int height,
                                                            int width) {
  squares.resize(static_cast<std::size_t>(width));
  for (int x = 0; x < width; ++x) {
    const double dx = (2 * x + 1 - disc.x) / disc.radius_x;
    squares[static_cast<std::size_t>(x)] = dx * dx;
  }
  const double* const across = squares.data();
  const auto count_inside = [&disc, across](int row, int begin, int end) {
    const double dy = (2 * row + 1 - disc.y) / disc.radius_y, down = dy * dy;
    std::int64_t count = 0;
    for (int x = begin; x < end; ++x) count += across[x] + down <= 1.1 ? 1 : 0;
    return count;
  };
  std::int64_t area = 0, inside = 0;
  for (int y = 0; y < height; ++y) area += count_inside(y, 0, width);
  for (const Run& run : component.runs()) inside += count_inside(run.row, run.begin, run.end);
  if (inside * 10 < std::int64_t{9} * component.area())
    return not_a_disc("much of what is bright lies outside it");
  if (inside * 100 < kMinBrightPercent * area) return not_a_disc("most of it is dark");
  return {};
}

FieldOfViewResult find_field_of_view(const std::uint8_t* brightness, int thumb_height,
                                     int thumb_width, int stride, int frame_height,
                                     int frame_width) {
  return FieldOfViewFinder().find(brightness, thumb_height, thumb_width, stride, frame_height,
                                  frame_width);
}

} // namespace fundus
