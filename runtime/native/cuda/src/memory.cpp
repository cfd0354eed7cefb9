#include "memory.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "fundus/cuda/error.hpp"

namespace fundus::cuda {

namespace {

std::string advice_for(int status) {
  switch (status) {
    case cudaErrorInsufficientDriver:
    case cudaErrorNoDevice:
    case cudaErrorStubLibrary:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorSystemNotReady:
      return "no usable NVIDIA GPU or driver is here: install a driver for this CUDA, or start the "
             "container with the GPU";
    case cudaErrorInvalidDevice:
      return "the device's number is that of no GPU here";
    case cudaErrorMemoryAllocation:
      return "free device memory, which another program may hold";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
      return "the core was built for other GPUs: build it with CMAKE_CUDA_ARCHITECTURES for this "
             "one";
    case cudaErrorStreamCaptureUnsupported:
      return "the preprocessing waits for its thumbnail, so the stream must not be under capture";
    default:
      return "work given to this GPU earlier may have failed; where the error stays, restart the "
             "process";
  }
}

// The end of what a frame occupies, on either side of its first sample.
struct Extent {
  std::int64_t first = 0;
  std::int64_t last = 0;
};

Extent extent_of(const FrameView& frame) {
  const std::int64_t reaches[] = {
      static_cast<std::int64_t>(frame.height - 1) * frame.row_stride_bytes,
      static_cast<std::int64_t>(frame.width - 1) * frame.pixel_stride_bytes,
      2 * static_cast<std::int64_t>(frame.channel_stride_bytes)};
  Extent extent;
  for (const std::int64_t reach : reaches) (reach < 0 ? extent.first : extent.last) += reach;
  return extent;
}

cudaPointerAttributes attributes_of(const void* address) {
  cudaPointerAttributes attributes{};
  require_success(cudaPointerGetAttributes(&attributes, address), "cudaPointerGetAttributes");
  return attributes;
}

std::string device_text(int device) {
  return "GPU " + std::to_string(device);
}

template <class Error>
void require_on(const cudaPointerAttributes& attributes, int device, const std::string& what) {
  if (attributes.type != cudaMemoryTypeDevice || attributes.device == device) return;
  throw Error(what + " lies in the memory of " + device_text(attributes.device) + ", expected " +
              device_text(device) + "; copy it there or make a preprocessor for its GPU");
}

const std::uint8_t* frame_on_device(const std::uint8_t* address, int device) {
  const auto attributes = attributes_of(address);
  if (attributes.type == cudaMemoryTypeUnregistered) {
    throw FrameMemoryError(
        "the frame lies in pageable host memory, which the GPU cannot read; expected pinned host, "
        "managed or device memory: have the camera write into memory of cudaHostAlloc, or pin its "
        "buffer once with cudaHostRegister");
  }
  require_on<FrameMemoryError>(attributes, device, "the frame");
  if (attributes.devicePointer == nullptr) {
    throw FrameMemoryError(
        "the frame's memory is pinned but not mapped for the GPU; pin it with "
        "cudaHostAllocMapped or cudaHostRegisterMapped");
  }
  return static_cast<const std::uint8_t*>(attributes.devicePointer);
}

} // namespace

void require_success(int status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError(); // or the next call would report this one's error again
  const auto error = static_cast<cudaError_t>(status);
  throw CudaError(status, std::string(call) + " failed: " + cudaGetErrorString(error) + " (" +
                              cudaGetErrorName(error) + "); " + advice_for(status));
}

DeviceGuard::DeviceGuard(int device) : device_(device) {
  require_success(cudaGetDevice(&previous_), "cudaGetDevice");
  if (previous_ != device_) require_success(cudaSetDevice(device_), "cudaSetDevice");
}

DeviceGuard::~DeviceGuard() {
  if (previous_ != device_) cudaSetDevice(previous_);
}

DeviceBuffer::DeviceBuffer(std::size_t size_bytes) {
  require_success(cudaMalloc(&data_, size_bytes), "cudaMalloc");
}

DeviceBuffer::~DeviceBuffer() {
  cudaFree(data_);
}

PinnedBuffer::~PinnedBuffer() {
  free();
}

void PinnedBuffer::reserve(std::size_t size_bytes) {
  if (size_bytes <= size_bytes_) return;
  free();
  require_success(cudaHostAlloc(&host_, size_bytes, cudaHostAllocMapped), "cudaHostAlloc");
  require_success(cudaHostGetDevicePointer(&device_, host_, 0), "cudaHostGetDevicePointer");
  size_bytes_ = size_bytes;
}

void PinnedBuffer::free() noexcept {
  if (host_ != nullptr) cudaFreeHost(host_);
  host_ = device_ = nullptr;
  size_bytes_ = 0;
}

Event::Event() {
  require_success(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming),
                  "cudaEventCreateWithFlags");
}

Event::~Event() {
  cudaEventDestroy(event_);
}

void Event::record(Stream stream) {
  require_success(cudaEventRecord(event_, stream), "cudaEventRecord");
}

void Event::record_if_possible(Stream stream) noexcept {
  cudaEventRecord(event_, stream);
}

void Event::wait() const {
  require_success(cudaEventSynchronize(event_), "cudaEventSynchronize");
}

void Event::wait_if_possible() const noexcept {
  cudaEventSynchronize(event_);
}

void Event::hold_back(Stream stream) const {
  require_success(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent");
}

FrameSamples samples_on_device(const FrameView& frame, int device) {
  require_frame(frame);
  const Extent extent = extent_of(frame);
  // both ends, so that memory which was pinned for a smaller frame is found here and not by a fault
  const std::uint8_t* first = frame_on_device(frame.data + extent.first, device);
  frame_on_device(frame.data + extent.last, device);
  const FrameView forward = with_forward_channels(frame);
  FrameSamples samples;
  samples.data = first - extent.first + (forward.data - frame.data);
  samples.height = forward.height;
  samples.width = forward.width;
  samples.row_stride_bytes = forward.row_stride_bytes;
  samples.pixel_stride_bytes = forward.pixel_stride_bytes;
  samples.channel_stride_bytes = forward.channel_stride_bytes;
  samples.red_channel = forward.color == ColorOrder::rgb ? 0 : 2;
  return samples;
}

void require_tensor(const TensorView& tensor, int size, int device) {
  const std::size_t value_bytes = tensor.type == TensorType::fp16 ? 2 : 4;
  const std::size_t values =
      std::size_t{3} * static_cast<std::size_t>(size) * static_cast<std::size_t>(size);
  if (tensor.data == nullptr || reinterpret_cast<std::uintptr_t>(tensor.data) % value_bytes != 0) {
    throw TensorMemoryError("the tensor's address is null or no multiple of " +
                            std::to_string(value_bytes) + " bytes, the size of a value");
  }
  const auto* first = static_cast<const std::uint8_t*>(tensor.data);
  for (const auto* address : {first, first + values * value_bytes - 1}) {
    const auto attributes = attributes_of(address);
    require_on<TensorMemoryError>(attributes, device, "the tensor");
    if (attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged) {
      continue;
    }
    throw TensorMemoryError(
        "the tensor lies in host memory or reaches beyond its allocation; expected device or "
        "managed memory for 3 x " +
        std::to_string(size) + " x " + std::to_string(size) + " values, as the engine's input is");
  }
}

} // namespace fundus::cuda
