// From a frame to the network's input: field of view, crop, area resampling, illumination
// correction, mask, normalisation. Reads a thumbnail of the frame and then the crop, once.
//
// Field of view, box and mask equal the Python reference's. The 8-bit image is the exact area mean,
// rounded half to even; what follows is the reference's FP32 arithmetic, operation by operation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "fundus/field_of_view.hpp"
#include "fundus/frame.hpp"
#include "fundus/geometry.hpp"
#include "fundus/spec.hpp"

namespace fundus {

enum class TensorType { fp32, fp16 };

// Memory of the caller for 3 x size x size values, packed, planes in the order red, green, blue.
struct TensorView {
  void* data = nullptr;
  TensorType type = TensorType::fp32;
};

// Where the parts of an eye go; memory of the caller. `mask` is 1 or 0.
struct EyeBuffers {
  std::uint8_t* image = nullptr; // size x size x 3, RGB
  std::uint8_t* mask = nullptr;  // size x size
};

struct EyeGeometry {
  Refusal refusal;   // where set, the rest is not, and nothing was written
  FieldOfView field; // also set where the disc is too small
  CropBox box;
};

// Which build of the inner loops runs; every one gives the same bits.
enum class KernelSet { best, baseline, avx2, avx512 };

// Whether this build has the kernels and this processor can run them; best and baseline always.
bool kernel_set_usable(KernelSet set) noexcept;

// One serves one call at a time. Allocates in the first call with a frame of a size and not after.
class Preprocessor {
 public:
  // Throws std::invalid_argument: a spec out of range, threads not 1 to 256, kernels not usable.
  explicit Preprocessor(const PreprocessSpec& spec, int threads = 1,
                        KernelSet kernels = KernelSet::best);
  ~Preprocessor();
  Preprocessor(Preprocessor&&) noexcept;
  Preprocessor& operator=(Preprocessor&&) noexcept;

  const PreprocessSpec& spec() const noexcept;

  // Up to the 8-bit image. Throws std::invalid_argument for a frame that is none, std::bad_alloc.
  EyeGeometry crop(const FrameView& frame, const EyeBuffers& eye);

  // The whole. Likewise.
  EyeGeometry prepare(const FrameView& frame, const EyeBuffers& eye, const TensorView& tensor);

  // From an 8-bit image and its mask on.
  void normalise(const std::uint8_t* image, const std::uint8_t* mask, const TensorView& tensor);

  // Samples of the frame that was last looked at, for who judges it.
  const Thumbnail& thumbnail() const noexcept;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

} // namespace fundus
