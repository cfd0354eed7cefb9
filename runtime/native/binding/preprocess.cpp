// fundus::Preprocessor as Python sees it. Checks that arrays are what the core expects; what they
// should have been, fundus_runtime.preprocess.native tells the user.
#include "preprocess.hpp"

#include <nanobind/ndarray.h>

#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "frame.hpp"
#include "fundus/preprocessor.hpp"
#include "values.hpp"

namespace nb = nanobind;

namespace {

using fundus::binding::Frame;
using fundus::binding::Named;
using fundus::binding::require;
using fundus::binding::spec_of;
using fundus::binding::text;
using fundus::binding::tuple_of;
using fundus::binding::value_of;
using fundus::binding::view_of;

using Bytes = nb::ndarray<std::uint8_t, nb::c_contig, nb::device::cpu>;
using Tensor = nb::ndarray<nb::ndim<3>, nb::c_contig, nb::device::cpu>;

constexpr Named<fundus::KernelSet> kKernelSets[] = {
    {"best", fundus::KernelSet::best},
    {"baseline", fundus::KernelSet::baseline},
    {"avx2", fundus::KernelSet::avx2},
    {"avx512", fundus::KernelSet::avx512},
};

fundus::TensorView view_of(const Tensor& tensor, int size) {
  const auto side = static_cast<std::size_t>(size);
  require(tensor.shape(0) == 3 && tensor.shape(1) == side && tensor.shape(2) == side,
          "the tensor is not 3 x size x size");
  const nb::dlpack::dtype type = tensor.dtype();
  require(type == nb::dtype<float>() ||
              type == nb::dlpack::dtype{static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float),
                                        16, 1},
          "the tensor is neither float32 nor float16");
  return {tensor.data(), type.bits == 16 ? fundus::TensorType::fp16 : fundus::TensorType::fp32};
}

fundus::EyeBuffers buffers_of(const Bytes& image, const Bytes& mask, int size) {
  const auto count = static_cast<std::size_t>(size) * static_cast<std::size_t>(size);
  require(image.size() == 3 * count && mask.size() == count,
          "image and mask are not size x size x 3 and size x size");
  return {image.data(), mask.data()};
}

// Calls from several threads run side by side, without the interpreter's lock, each with a
// preprocessor to itself. As many are kept as were ever needed at once.
class SharedPreprocessor {
 public:
  SharedPreprocessor(const fundus::PreprocessSpec& spec, int threads, fundus::KernelSet kernels)
      : spec_(spec), threads_(threads), kernels_(kernels) {
    give_back(make());
  }

  nb::tuple crop(const Frame& frame, std::string_view color, const Bytes& image,
                 const Bytes& mask) {
    const fundus::FrameView view = view_of(frame, color);
    const fundus::EyeBuffers eye = buffers_of(image, mask, spec_.size);
    return tuple_of(
        unlocked([&](fundus::Preprocessor& preprocessor) { return preprocessor.crop(view, eye); }));
  }

  nb::tuple prepare(const Frame& frame, std::string_view color, const Bytes& image,
                    const Bytes& mask, const Tensor& tensor) {
    const fundus::FrameView view = view_of(frame, color);
    const fundus::EyeBuffers eye = buffers_of(image, mask, spec_.size);
    const fundus::TensorView out = view_of(tensor, spec_.size);
    return tuple_of(unlocked(
        [&](fundus::Preprocessor& preprocessor) { return preprocessor.prepare(view, eye, out); }));
  }

  void normalise(const Bytes& image, const Bytes& mask, const Tensor& tensor) {
    const fundus::EyeBuffers eye = buffers_of(image, mask, spec_.size);
    const fundus::TensorView out = view_of(tensor, spec_.size);
    unlocked([&](fundus::Preprocessor& preprocessor) {
      preprocessor.normalise(eye.image, eye.mask, out);
      return fundus::EyeGeometry{};
    });
  }

 private:
  using Owned = std::unique_ptr<fundus::Preprocessor>;

  template <class Work>
  fundus::EyeGeometry unlocked(Work work) {
    const nb::gil_scoped_release released;
    Owned own = take();
    const fundus::EyeGeometry geometry = work(*own);
    give_back(std::move(own)); // one whose work threw may be half-changed, and is let go
    return geometry;
  }

  Owned make() const { return std::make_unique<fundus::Preprocessor>(spec_, threads_, kernels_); }

  Owned take() {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        Owned own = std::move(idle_.back());
        idle_.pop_back();
        return own;
      }
    }
    return make();
  }

  void give_back(Owned own) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(own));
  }

  fundus::PreprocessSpec spec_;
  int threads_;
  fundus::KernelSet kernels_;
  std::mutex mutex_;
  std::vector<Owned> idle_;
};

void construct(SharedPreprocessor* self, int size, int crop_permille, std::string_view illumination,
               int illumination_window_px, double illumination_gain, double illumination_constant,
               int mask_permille, std::array<double, 3> mean, std::array<double, 3> std,
               int threads, std::string_view kernels) {
  const fundus::PreprocessSpec spec =
      spec_of(size, crop_permille, illumination, illumination_window_px, illumination_gain,
              illumination_constant, mask_permille, mean, std);
  new (self) SharedPreprocessor(spec, threads, value_of(kKernelSets, kernels, "kernels"));
}

} // namespace

void bind_preprocess(nb::module_& module) {
  using namespace nb::literals;
  nb::class_<SharedPreprocessor>(module, "Preprocessor")
      .def("__init__", &construct, nb::kw_only(), "size"_a, "crop_permille"_a, "illumination"_a,
           "illumination_window_px"_a, "illumination_gain"_a, "illumination_constant"_a,
           "mask_permille"_a, "mean"_a, "std"_a, "threads"_a, "kernels"_a)
      .def("crop", &SharedPreprocessor::crop, "frame"_a.noconvert(), "color"_a,
           "image"_a.noconvert(), "mask"_a.noconvert())
      .def("prepare", &SharedPreprocessor::prepare, "frame"_a.noconvert(), "color"_a,
           "image"_a.noconvert(), "mask"_a.noconvert(), "tensor"_a.noconvert())
      .def("normalise", &SharedPreprocessor::normalise, "image"_a.noconvert(), "mask"_a.noconvert(),
           "tensor"_a.noconvert());
  module.def(
      "kernel_sets",
      [] {
        nb::list usable;
        for (const auto& entry : kKernelSets)
          if (fundus::kernel_set_usable(entry.value)) usable.append(text(entry.name));
        return usable;
      },
      "Names of the builds of the inner loops that this processor can run.");
}
