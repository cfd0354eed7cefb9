// The CUDA twin of fundus::Preprocessor: from a frame that the GPU can read straight into the
// engine's input, on a stream of the caller. No CUDA header is needed to use it.
//
// Field of view, crop box and mask are those of the host, found by the host's own code from a
// thumbnail that the GPU gathered; the 8-bit image is the same exact area mean; what follows is the
// same FP32 arithmetic without fused multiply-adds.
#pragma once

#include <cstdint>
#include <memory>

#include "fundus/field_of_view.hpp"
#include "fundus/frame.hpp"
#include "fundus/preprocessor.hpp"
#include "fundus/spec.hpp"

struct CUstream_st;

namespace fundus::cuda {

using Stream = CUstream_st*; // cudaStream_t, and CUstream of the driver's interface

// Samples of a frame in pinned host memory; valid until the next frame.
struct ThumbnailView {
  int stride = 0;
  int height = 0;
  int width = 0;
  const std::uint8_t* rgb = nullptr;        // height x width x 3, red first
  const std::uint8_t* brightness = nullptr; // height x width
};

// One serves one call at a time, on any stream. Allocates when it is made and in the first call
// with a larger thumbnail, and not after.
class Preprocessor {
 public:
  // Throws std::invalid_argument for a spec out of range, CudaError where the GPU is not usable.
  explicit Preprocessor(const PreprocessSpec& spec, int device = 0);
  ~Preprocessor();
  Preprocessor(Preprocessor&&) noexcept;
  Preprocessor& operator=(Preprocessor&&) = delete;

  const PreprocessSpec& spec() const noexcept;

  // Gathers the thumbnail, waits for it, and enqueues the rest on `stream`, which must be no stream
  // under capture. `frame.data` is pinned and mapped host memory, managed or device memory, and
  // stays unchanged until the stream has passed this work; `tensor.data` is managed or device
  // memory, one eye's part of the engine's input. Where `eye` names buffers on the host, waits for
  // the 8-bit image and the mask and fills those.
  //
  // Throws MemoryKindError for memory of another kind or GPU, std::invalid_argument for a frame
  // that is none, CudaError, std::bad_alloc.
  EyeGeometry prepare(const FrameView& frame, const TensorView& tensor, Stream stream,
                      const EyeBuffers& eye = {});

  // Makes what `stream` is given next wait for all that `producer` has been given.
  void wait_for(Stream producer, Stream stream);

  // Of the frame that was last looked at, for who judges it.
  ThumbnailView thumbnail() const noexcept;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

} // namespace fundus::cuda
