#include "fundus/cuda/preprocessor.hpp"

#include <cuda_runtime_api.h>

#include <cstddef>

#include "fundus/cuda/error.hpp"
#include "fundus/cuda/kernels.hpp"
#include "fundus/geometry.hpp"
#include "memory.hpp"

namespace fundus::cuda {

namespace {

std::size_t pixels_of(const PreprocessSpec& spec) {
  return static_cast<std::size_t>(spec.size) * static_cast<std::size_t>(spec.size);
}

// Before anything is allocated for it.
const PreprocessSpec& checked(const PreprocessSpec& spec) {
  require_spec(spec);
  return spec;
}

// Marks the end of a call's work in its stream, also where an exception ends the call.
class MarkedEnd {
 public:
  MarkedEnd(Event& end, Stream stream) : end_(end), stream_(stream) {}
  ~MarkedEnd() { end_.record_if_possible(stream_); }
  MarkedEnd(const MarkedEnd&) = delete;
  MarkedEnd& operator=(const MarkedEnd&) = delete;

 private:
  Event& end_;
  Stream stream_;
};

} // namespace

struct Preprocessor::Parts {
  Parts(const PreprocessSpec& the_spec, int the_device)
      : spec(checked(the_spec)),
        device(the_device),
        crop(4 * pixels_of(spec)),
        sums(sizeof(MaskedSums) * (corrects() ? pixels_of(spec) : 1)),
        taps(taps_bytes()),
        staged_taps(taps_bytes()),
        staged_crop(4 * pixels_of(spec)),
        staged_brightness(4),
        staged_rgb(12) {}

  std::size_t taps_bytes() const {
    return 2 * static_cast<std::size_t>(spec.size) * sizeof(AreaTap);
  }

  bool corrects() const { return spec.illumination != Illumination::none; }

  FieldOfViewResult find_disc(const FrameSamples& frame, Stream stream);
  void resample(const FrameSamples& frame, const CropBox& box, Stream stream);
  void finish(const TensorView& tensor, Stream stream);
  void fetch(const EyeBuffers& eye, Stream stream);

  PreprocessSpec spec;
  int device;
  DeviceBuffer crop;
  DeviceBuffer sums;
  DeviceBuffer taps;
  PinnedBuffer staged_taps;
  PinnedBuffer staged_crop;
  PinnedBuffer staged_brightness;
  PinnedBuffer staged_rgb;
  Event seen;  // the thumbnail is on the host
  Event done;  // the buffers above are free again
  Event given; // what another stream had to do
  ThumbnailView thumbnail;
  FieldOfViewFinder finder;
};

FieldOfViewResult Preprocessor::Parts::find_disc(const FrameSamples& frame, Stream stream) {
  ThumbnailArguments arguments = thumbnail_arguments(frame);
  const auto words = static_cast<std::size_t>(thumbnail_groups(arguments.height, arguments.width));
  staged_brightness.reserve(4 * words);
  staged_rgb.reserve(12 * words);
  arguments.brightness = staged_brightness.on_device<std::uint32_t>();
  arguments.rgb = staged_rgb.on_device<std::uint32_t>();
  launch_thumbnail(arguments, stream);
  seen.record(stream);
  seen.wait();
  thumbnail = {arguments.stride, arguments.height, arguments.width,
               staged_rgb.on_host<std::uint8_t>(), staged_brightness.on_host<std::uint8_t>()};
  return finder.find(thumbnail.brightness, thumbnail.height, thumbnail.width, thumbnail.stride,
                     frame.height, frame.width);
}

// The taps go through pinned memory, which is free: `seen` came after all earlier work.
void Preprocessor::Parts::resample(const FrameSamples& frame, const CropBox& box, Stream stream) {
  auto* staged = staged_taps.on_host<AreaTap>();
  ResampleArguments arguments = resample_arguments(frame, box, spec, staged);
  require_success(
      cudaMemcpyAsync(taps.as<void>(), staged, taps_bytes(), cudaMemcpyHostToDevice, stream),
      "cudaMemcpyAsync");
  arguments.row_taps = taps.as<AreaTap>();
  arguments.column_taps = arguments.row_taps + spec.size;
  arguments.crop = crop.as<std::uint8_t>();
  launch_resample(arguments, stream);
}

void Preprocessor::Parts::finish(const TensorView& tensor, Stream stream) {
  FinishArguments arguments =
      finish_arguments(spec, crop.as<std::uint32_t>(), sums.as<MaskedSums>());
  arguments.tensor = tensor.data;
  if (corrects()) {
    launch_column_sums({arguments.crop, sums.as<MaskedSums>(), spec.size, arguments.radius},
                       stream);
  }
  launch_finish(arguments, tensor.type, stream);
}

void Preprocessor::Parts::fetch(const EyeBuffers& eye, Stream stream) {
  if (eye.image == nullptr && eye.mask == nullptr) return;
  auto* staged = staged_crop.on_host<std::uint8_t>();
  const std::size_t pixels = pixels_of(spec);
  require_success(
      cudaMemcpyAsync(staged, crop.as<void>(), 4 * pixels, cudaMemcpyDeviceToHost, stream),
      "cudaMemcpyAsync");
  seen.record(stream);
  seen.wait();
  for (std::size_t i = 0; i < pixels; ++i) {
    for (std::size_t c = 0; c < 3 && eye.image != nullptr; ++c) {
      eye.image[3 * i + c] = staged[4 * i + c];
    }
    if (eye.mask != nullptr) eye.mask[i] = staged[4 * i + 3];
  }
}

Preprocessor::Preprocessor(const PreprocessSpec& spec, int device) {
  const DeviceGuard guard(device);
  parts_ = std::make_unique<Parts>(spec, device);
}

Preprocessor::~Preprocessor() {
  if (!parts_) return;
  int previous = 0;
  const bool known = cudaGetDevice(&previous) == cudaSuccess;
  cudaSetDevice(parts_->device);
  parts_->done.wait_if_possible();
  parts_.reset();
  if (known) cudaSetDevice(previous);
}

Preprocessor::Preprocessor(Preprocessor&&) noexcept = default;

const PreprocessSpec& Preprocessor::spec() const noexcept {
  return parts_->spec;
}

EyeGeometry Preprocessor::prepare(const FrameView& frame, const TensorView& tensor, Stream stream,
                                  const EyeBuffers& eye) {
  Parts& parts = *parts_;
  const DeviceGuard guard(parts.device);
  const FrameSamples samples = samples_on_device(frame, parts.device);
  require_tensor(tensor, parts.spec.size, parts.device);
  parts.done.hold_back(stream); // an earlier call may have used another stream
  const MarkedEnd end(parts.done, stream);
  const FieldOfViewResult found = parts.find_disc(samples, stream);
  EyeGeometry geometry;
  geometry.refusal = found.refusal;
  geometry.field = found.field;
  if (geometry.refusal) return geometry;
  geometry.box = crop_box(found.field, parts.spec);
  parts.resample(samples, geometry.box, stream);
  parts.finish(tensor, stream);
  parts.fetch(eye, stream);
  return geometry;
}

void Preprocessor::wait_for(Stream producer, Stream stream) {
  const DeviceGuard guard(parts_->device);
  parts_->given.record(producer);
  parts_->given.hold_back(stream);
}

ThumbnailView Preprocessor::thumbnail() const noexcept {
  return parts_->thumbnail;
}

} // namespace fundus::cuda
