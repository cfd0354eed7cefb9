#include "fundus/preprocessor.hpp"

#include <stdexcept>
#include <string>
#include <vector>

#include "illumination.hpp"
#include "kernels.hpp"
#include "resampler.hpp"
#include "worker_pool.hpp"

namespace fundus {

namespace {

constexpr int kMaxThreads = 256;

const Kernels& require_kernels(KernelSet set) {
  const Kernels* const kernels = kernels_of(set);
  if (kernels == nullptr)
    throw std::invalid_argument("this processor or this build lacks the kernels asked for");
  return *kernels;
}

const PreprocessSpec& required(const PreprocessSpec& spec) {
  require_spec(spec);
  return spec;
}

int required_threads(int threads) {
  if (threads < 1 || threads > kMaxThreads)
    throw std::invalid_argument("threads is " + std::to_string(threads) + ", expected 1 to " +
                                std::to_string(kMaxThreads));
  return threads;
}

} // namespace

struct Preprocessor::Parts {
  Parts(const PreprocessSpec& given, int threads, KernelSet set)
      : spec(required(given)),
        kernels(require_kernels(set)),
        pool(required_threads(threads)),
        resamplers(static_cast<std::size_t>(threads)),
        corrector(spec) {}

  PreprocessSpec spec;
  const Kernels& kernels;
  WorkerPool pool;
  std::vector<Resampler> resamplers; // one a thread
  LevelCorrector corrector;
  FieldOfViewFinder finder;
  Thumbnail thumbnail;
};

Preprocessor::Preprocessor(const PreprocessSpec& spec, int threads, KernelSet kernels)
    : parts_(std::make_unique<Parts>(spec, threads, kernels)) {}
Preprocessor::~Preprocessor() = default;
Preprocessor::Preprocessor(Preprocessor&&) noexcept = default;
Preprocessor& Preprocessor::operator=(Preprocessor&&) noexcept = default;

const PreprocessSpec& Preprocessor::spec() const noexcept {
  return parts_->spec;
}

const Thumbnail& Preprocessor::thumbnail() const noexcept {
  return parts_->thumbnail;
}

EyeGeometry Preprocessor::crop(const FrameView& original, const EyeBuffers& eye) {
  require_frame(original);
  Parts& parts = *parts_;
  const FrameView frame = with_forward_channels(original);
  Thumbnail& thumbnail = parts.thumbnail;
  gather_thumbnail(frame, thumbnail);
  const FieldOfViewResult found =
      parts.finder.find(thumbnail.brightness.data(), thumbnail.height, thumbnail.width,
                        thumbnail.stride, frame.height, frame.width);
  if (found.refusal) return {found.refusal, found.field, {}};

  const int size = parts.spec.size;
  const CropBox box = crop_box(found.field, parts.spec);
  // The workers must not throw, so that their memory is there before they start.
  for (Resampler& resampler : parts.resamplers) resampler.reserve(frame, size);
  const int count = parts.pool.parts();
  auto resample_part = [&](int part) {
    parts.resamplers[static_cast<std::size_t>(part)].resample(
        frame, box, size, size * part / count, size * (part + 1) / count, parts.kernels, eye.image);
  };
  parts.pool.run(resample_part);
  fill_mask(box, frame.height, frame.width, parts.spec, eye.mask);
  return {{}, found.field, box};
}

EyeGeometry Preprocessor::prepare(const FrameView& frame, const EyeBuffers& eye,
                                  const TensorView& tensor) {
  const EyeGeometry geometry = crop(frame, eye);
  if (!geometry.refusal) normalise(eye.image, eye.mask, tensor);
  return geometry;
}

void Preprocessor::normalise(const std::uint8_t* image, const std::uint8_t* mask,
                             const TensorView& tensor) {
  parts_->corrector.correct(image, mask, parts_->kernels, tensor);
}

} // namespace fundus
