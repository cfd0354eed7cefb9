// fundus::cuda::Preprocessor as Python sees it: memory of the GPU is an address here. What arrays
// those belong to, fundus_runtime.preprocess.cuda has checked.
#include "cuda.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string_view>

#include "fundus/cuda/error.hpp"
#include "fundus/cuda/preprocessor.hpp"
#include "values.hpp"

namespace nb = nanobind;

namespace {

using fundus::binding::kColors;
using fundus::binding::require;
using fundus::binding::spec_of;
using fundus::binding::tuple_of;
using fundus::binding::value_of;
using fundus::cuda::Stream;

using Address = std::uintptr_t;
using Bytes = nb::ndarray<std::uint8_t, nb::c_contig, nb::device::cpu>;
using Strides = std::array<std::ptrdiff_t, 3>;

Stream stream_of(Address handle) {
  return reinterpret_cast<Stream>(handle);
}

fundus::FrameView view_of(Address address, int height, int width, const Strides& strides,
                          std::string_view color) {
  fundus::FrameView frame;
  frame.data = reinterpret_cast<const std::uint8_t*>(address);
  frame.height = height;
  frame.width = width;
  frame.row_stride_bytes = strides[0];
  frame.pixel_stride_bytes = strides[1];
  frame.channel_stride_bytes = strides[2];
  frame.color = value_of(kColors, color, "color");
  return frame;
}

fundus::EyeBuffers buffers_of(const std::optional<Bytes>& image, const std::optional<Bytes>& mask,
                              int size) {
  const auto count = static_cast<std::size_t>(size) * static_cast<std::size_t>(size);
  require(!image || image->size() == 3 * count, "the image is not size x size x 3");
  require(!mask || mask->size() == count, "the mask is not size x size");
  return {image ? image->data() : nullptr, mask ? mask->data() : nullptr};
}

// Calls from several threads wait for each other, without the interpreter's lock.
class SharedCudaPreprocessor {
 public:
  SharedCudaPreprocessor(const fundus::PreprocessSpec& spec, int device)
      : preprocessor_(spec, device) {}

  nb::tuple prepare(Address frame, int height, int width, const Strides& strides,
                    std::string_view color, Address tensor, bool half, Address stream,
                    std::optional<Address> producer, const std::optional<Bytes>& image,
                    const std::optional<Bytes>& mask) {
    const fundus::FrameView view = view_of(frame, height, width, strides, color);
    const fundus::EyeBuffers eye = buffers_of(image, mask, preprocessor_.spec().size);
    const fundus::TensorView out{reinterpret_cast<void*>(tensor),
                                 half ? fundus::TensorType::fp16 : fundus::TensorType::fp32};
    return tuple_of(run(view, out, stream_of(stream), producer, eye));
  }

 private:
  fundus::EyeGeometry run(const fundus::FrameView& frame, const fundus::TensorView& tensor,
                          Stream stream, std::optional<Address> producer,
                          const fundus::EyeBuffers& eye) {
    const nb::gil_scoped_release released;
    const std::lock_guard lock(mutex_);
    if (producer) preprocessor_.wait_for(stream_of(*producer), stream);
    return preprocessor_.prepare(frame, tensor, stream, eye);
  }

  std::mutex mutex_;
  fundus::cuda::Preprocessor preprocessor_;
};

void construct(SharedCudaPreprocessor* self, int size, int crop_permille,
               std::string_view illumination, int illumination_window_px, double illumination_gain,
               double illumination_constant, int mask_permille, std::array<double, 3> mean,
               std::array<double, 3> std, int device) {
  const fundus::PreprocessSpec spec =
      spec_of(size, crop_permille, illumination, illumination_window_px, illumination_gain,
              illumination_constant, mask_permille, mean, std);
  new (self) SharedCudaPreprocessor(spec, device);
}

} // namespace

void bind_cuda(nb::module_& module) {
  using namespace nb::literals;
  nb::exception<fundus::cuda::CudaError>(module, "CudaError", PyExc_RuntimeError);
  nb::exception<fundus::cuda::FrameMemoryError>(module, "FrameMemoryError", PyExc_ValueError);
  nb::exception<fundus::cuda::TensorMemoryError>(module, "TensorMemoryError", PyExc_ValueError);
  nb::class_<SharedCudaPreprocessor>(module, "CudaPreprocessor")
      .def("__init__", &construct, nb::kw_only(), "size"_a, "crop_permille"_a, "illumination"_a,
           "illumination_window_px"_a, "illumination_gain"_a, "illumination_constant"_a,
           "mask_permille"_a, "mean"_a, "std"_a, "device"_a)
      .def("prepare", &SharedCudaPreprocessor::prepare, nb::kw_only(), "frame"_a, "height"_a,
           "width"_a, "strides"_a, "color"_a, "tensor"_a, "half"_a, "stream"_a,
           "producer"_a = nb::none(), "image"_a.noconvert() = nb::none(),
           "mask"_a.noconvert() = nb::none());
}
