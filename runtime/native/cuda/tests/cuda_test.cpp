// The CUDA preprocessing on a GPU against the CPU core, bit for bit; and, where no GPU is, that it
// says so. Exits with 77, "skipped", there, and fails with FUNDUS_REQUIRE_GPU=1.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "fundus/cuda/error.hpp"
#include "fundus/cuda/preprocessor.hpp"
#include "fundus/preprocessor.hpp"
#include "scenes.hpp"

namespace {

using fundus::EyeGeometry;
using fundus::FrameView;
using fundus::PreprocessSpec;
using fundus::TensorType;
using fundus::cuda::require_success;
namespace scenes = fundus::cuda::scenes;

constexpr int kSkipped = 77;

int checks = 0;
int failures = 0;

void check(bool holds, const std::string& what) {
  ++checks;
  if (holds) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  ++failures;
}

template <class Error, class Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool gpu_is_here() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

void absence_of_a_gpu_is_a_typed_error() {
  const std::string message = message_of<fundus::cuda::CudaError>(
      [] { const fundus::cuda::Preprocessor preprocessor(PreprocessSpec{}); });
  check(message.find("failed") != std::string::npos && message.find("GPU") != std::string::npos,
        "the error names the call and what to do, not: " + message);
}

// The kinds of memory that a frame may come in.
enum class Kind { device, managed, pinned, registered };
constexpr Kind kKinds[] = {Kind::device, Kind::managed, Kind::pinned, Kind::registered};

class Memory {
 public:
  Memory(Kind kind, std::size_t size_bytes) : kind_(kind) {
    switch (kind) {
      case Kind::device:
        require_success(cudaMalloc(&data_, size_bytes), "cudaMalloc");
        break;
      case Kind::managed:
        require_success(cudaMallocManaged(&data_, size_bytes), "cudaMallocManaged");
        break;
      case Kind::pinned:
        require_success(cudaMallocHost(&data_, size_bytes), "cudaMallocHost");
        break;
      case Kind::registered:
        data_ = std::malloc(size_bytes);
        require_success(cudaHostRegister(data_, size_bytes, cudaHostRegisterMapped),
                        "cudaHostRegister");
    }
  }
  ~Memory() {
    cudaDeviceSynchronize();
    if (kind_ == Kind::registered) {
      cudaHostUnregister(data_);
      std::free(data_);
    } else if (kind_ == Kind::pinned) {
      cudaFreeHost(data_);
    } else {
      cudaFree(data_);
    }
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  template <class Value>
  Value* as() const {
    return static_cast<Value*>(data_);
  }

 private:
  Kind kind_;
  void* data_ = nullptr;
};

class OwnStream {
 public:
  OwnStream() {
    require_success(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  ~OwnStream() { cudaStreamDestroy(stream_); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

struct Eye {
  Eye(const PreprocessSpec& spec, TensorType type)
      : pixels(static_cast<std::size_t>(spec.size) * static_cast<std::size_t>(spec.size)),
        image(3 * pixels, 7),
        mask(pixels, 7),
        tensor(3 * pixels * (type == TensorType::fp16 ? 2 : 4), 7) {}
  std::size_t pixels;
  std::vector<std::uint8_t> image;
  std::vector<std::uint8_t> mask;
  std::vector<std::uint8_t> tensor; // as bytes
  EyeGeometry geometry;
};

Eye on_cpu(const FrameView& frame, const PreprocessSpec& spec, TensorType type) {
  Eye eye(spec, type);
  fundus::Preprocessor core(spec);
  eye.geometry =
      core.prepare(frame, {eye.image.data(), eye.mask.data()}, {eye.tensor.data(), type});
  return eye;
}

Eye on_gpu(const FrameView& frame, const PreprocessSpec& spec, TensorType type,
           fundus::cuda::Preprocessor& preprocessor, cudaStream_t stream) {
  Eye eye(spec, type);
  const Memory tensor(Kind::device, eye.tensor.size());
  eye.geometry = preprocessor.prepare(frame, {tensor.as<void>(), type}, stream,
                                      {eye.image.data(), eye.mask.data()});
  require_success(cudaMemcpyAsync(eye.tensor.data(), tensor.as<void>(), eye.tensor.size(),
                                  cudaMemcpyDeviceToHost, stream),
                  "cudaMemcpyAsync");
  require_success(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  return eye;
}

void expect_same(const Eye& gpu, const Eye& cpu, const std::string& name) {
  const auto& a = gpu.geometry;
  const auto& b = cpu.geometry;
  check(a.refusal.reason == b.refusal.reason && a.refusal.detail == b.refusal.detail,
        name + ": refusal");
  check(a.box.left_px == b.box.left_px && a.box.top_px == b.box.top_px &&
            a.box.right_px == b.box.right_px && a.box.bottom_px == b.box.bottom_px,
        name + ": crop box");
  if (b.refusal) return;
  check(gpu.image == cpu.image && gpu.mask == cpu.mask, name + ": 8-bit image and mask");
  check(gpu.tensor == cpu.tensor, name + ": tensor");
}

// The scene's bytes, moved as they are.
FrameView moved(const scenes::Scene& scene, const Memory& memory) {
  require_success(
      cudaMemcpy(memory.as<void>(), scene.memory.data(), scene.memory.size(), cudaMemcpyDefault),
      "cudaMemcpy");
  FrameView frame = scene.frame;
  frame.data = memory.as<std::uint8_t>() + (scene.frame.data - scene.memory.data());
  return frame;
}

// One preprocessor and stream for all frames of a spec, as on a robot.
void every_frame_equals_the_cpu() {
  std::size_t turn = 0;
  for (const auto& spec : scenes::specs()) {
    fundus::cuda::Preprocessor preprocessor(spec);
    const OwnStream stream;
    for (const auto& disc : scenes::discs()) {
      for (const auto& layout : scenes::kLayouts) {
        const auto scene = scenes::scene_of(disc, layout, 11);
        const TensorType type = ++turn % 3 == 0 ? TensorType::fp16 : TensorType::fp32;
        const Memory memory(kKinds[turn % 4], scene.memory.size());
        expect_same(on_gpu(moved(scene, memory), spec, type, preprocessor, stream.get()),
                    on_cpu(scene.frame, spec, type),
                    std::to_string(disc.width) + " px, " + layout.name);
      }
    }
  }
}

void every_kind_of_memory_gives_the_same() {
  const auto scene = scenes::scene_of(scenes::discs()[0], scenes::kLayouts[0], 5);
  for (const TensorType type : {TensorType::fp32, TensorType::fp16}) {
    const Eye expected = on_cpu(scene.frame, {}, type);
    for (const Kind kind : kKinds) {
      const Memory memory(kind, scene.memory.size());
      fundus::cuda::Preprocessor preprocessor({});
      expect_same(on_gpu(moved(scene, memory), {}, type, preprocessor, nullptr), expected,
                  "memory " + std::to_string(static_cast<int>(kind)));
    }
  }
}

// Two streams in turn on one preprocessor, nothing waited for in between.
void streams_in_turn_do_not_disturb_each_other() {
  const PreprocessSpec spec;
  fundus::cuda::Preprocessor preprocessor(spec);
  const OwnStream streams[2];
  const auto scene = scenes::scene_of(scenes::discs()[5], scenes::kLayouts[0], 1);
  const auto other = scenes::scene_of(scenes::discs()[0], scenes::kLayouts[0], 2);
  const Memory frames[2] = {{Kind::device, scene.memory.size()},
                            {Kind::device, other.memory.size()}};
  const FrameView views[2] = {moved(scene, frames[0]), moved(other, frames[1])};
  const Eye expected[2] = {on_cpu(scene.frame, spec, TensorType::fp32),
                           on_cpu(other.frame, spec, TensorType::fp32)};
  const std::size_t bytes = expected[0].tensor.size();
  const Memory tensors(Kind::device, 20 * bytes);
  for (std::size_t i = 0; i < 20; ++i) {
    preprocessor.prepare(views[i % 2], {tensors.as<std::uint8_t>() + i * bytes, TensorType::fp32},
                         streams[i % 2].get());
  }
  require_success(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  std::vector<std::uint8_t> tensor(bytes);
  for (std::size_t i = 0; i < 20; ++i) {
    cudaMemcpy(tensor.data(), tensors.as<std::uint8_t>() + i * bytes, bytes, cudaMemcpyDefault);
    check(tensor == expected[i % 2].tensor, "eye " + std::to_string(i) + " of two streams");
  }
}

void memory_that_no_kernel_reaches_is_refused() {
  const auto scene = scenes::scene_of(scenes::discs()[0], scenes::kLayouts[0], 5);
  fundus::cuda::Preprocessor preprocessor({});
  const std::size_t bytes = Eye({}, TensorType::fp32).tensor.size();
  const Memory tensor(Kind::device, bytes);
  const Memory frame(Kind::device, scene.memory.size());
  std::vector<float> on_host(bytes / 4);
  const auto refused = [&](const FrameView& view, void* out) {
    return message_of<fundus::cuda::MemoryKindError>(
        [&] { preprocessor.prepare(view, {out, TensorType::fp32}, nullptr); });
  };
  check(refused(scene.frame, tensor.as<void>()).find("pageable") != std::string::npos,
        "a pageable frame");
  check(!refused(moved(scene, frame), on_host.data()).empty(), "a tensor on the host");
  check(!refused(moved(scene, frame), tensor.as<std::uint8_t>() + 2).empty(), "an odd address");
  check(!refused(moved(scene, frame), nullptr).empty(), "no tensor");
}

void refusals_are_the_cpus_and_leave_the_tensor_alone() {
  scenes::Scene scene = scenes::scene_of(scenes::discs()[0], scenes::kLayouts[0], 5);
  fundus::cuda::Preprocessor preprocessor({});
  for (const std::uint8_t level : {std::uint8_t{0}, std::uint8_t{200}}) { // dark, then no surround
    std::fill(scene.memory.begin(), scene.memory.end(), level);
    const Eye expected = on_cpu(scene.frame, {}, TensorType::fp32);
    const Memory memory(Kind::pinned, scene.memory.size());
    const Memory tensor(Kind::managed, expected.tensor.size());
    std::memset(tensor.as<void>(), 7, expected.tensor.size());
    const auto geometry =
        preprocessor.prepare(moved(scene, memory), {tensor.as<void>(), TensorType::fp32}, nullptr);
    require_success(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    check(geometry.refusal && geometry.refusal.reason == expected.geometry.refusal.reason,
          "the same reason");
    check(std::memcmp(tensor.as<void>(), expected.tensor.data(), expected.tensor.size()) == 0,
          "nothing was written");
  }
}

void run_on_gpu() {
  every_kind_of_memory_gives_the_same();
  every_frame_equals_the_cpu();
  streams_in_turn_do_not_disturb_each_other();
  memory_that_no_kernel_reaches_is_refused();
  refusals_are_the_cpus_and_leave_the_tensor_alone();
}

} // namespace

int main() {
  const char* required = std::getenv("FUNDUS_REQUIRE_GPU");
  const bool here = gpu_is_here();
  if (!here) {
    absence_of_a_gpu_is_a_typed_error();
    if (failures != 0) return 1;
    const bool fatal = required != nullptr && std::string(required) == "1";
    std::fprintf(stderr, "%s: no GPU is here\n", fatal ? "FAILED" : "skipped");
    return fatal ? 1 : kSkipped;
  }
  run_on_gpu();
  std::printf("%d checks, %d failed\n", checks, failures);
  return failures == 0 ? 0 : 1;
}
