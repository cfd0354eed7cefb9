// As much of CUDA's runtime as the preprocessing and its test call, on the host: memory of every
// kind is host memory that is remembered by its kind, streams do their work at once, and a launch
// runs the kernel's steps over its grid. With it the code around the kernels runs where no GPU is;
// nothing that depends on a GPU's order of things is shown.
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>

#include "emulation.hpp"
#include "fundus/cuda/kernels.hpp"

namespace {

struct Block {
  std::size_t size_bytes;
  cudaMemoryType type;
};

std::map<std::uintptr_t, Block>& blocks() {
  static std::map<std::uintptr_t, Block> all;
  return all;
}

std::uintptr_t key_of(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address);
}

cudaError_t remember(void* address, std::size_t size_bytes, cudaMemoryType type) {
  if (address == nullptr) return cudaErrorMemoryAllocation;
  blocks()[key_of(address)] = {size_bytes, type};
  return cudaSuccess;
}

cudaError_t allocate(void** address, std::size_t size_bytes, cudaMemoryType type) {
  *address = std::malloc(size_bytes);
  return remember(*address, size_bytes, type);
}

cudaError_t give_back(void* address) {
  if (address == nullptr) return cudaSuccess;
  if (blocks().erase(key_of(address)) == 0) return cudaErrorInvalidValue;
  std::free(address);
  return cudaSuccess;
}

} // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
const char* cudaGetErrorName(cudaError_t) {
  return "an error's name";
}
const char* cudaGetErrorString(cudaError_t) {
  return "an error";
}

cudaError_t cudaMalloc(void** address, std::size_t size_bytes) {
  return allocate(address, size_bytes, cudaMemoryTypeDevice);
}
cudaError_t cudaMallocManaged(void** address, std::size_t size_bytes, unsigned int) {
  return allocate(address, size_bytes, cudaMemoryTypeManaged);
}
cudaError_t cudaMallocHost(void** address, std::size_t size_bytes) {
  return allocate(address, size_bytes, cudaMemoryTypeHost);
}
cudaError_t cudaHostAlloc(void** address, std::size_t size_bytes, unsigned int) {
  return allocate(address, size_bytes, cudaMemoryTypeHost);
}
cudaError_t cudaFree(void* address) {
  return give_back(address);
}
cudaError_t cudaFreeHost(void* address) {
  return give_back(address);
}
cudaError_t cudaHostRegister(void* address, std::size_t size_bytes, unsigned int) {
  return remember(address, size_bytes, cudaMemoryTypeHost);
}
cudaError_t cudaHostUnregister(void* address) {
  return blocks().erase(key_of(address)) == 0 ? cudaErrorInvalidValue : cudaSuccess;
}
cudaError_t cudaHostGetDevicePointer(void** on_device, void* on_host, unsigned int) {
  *on_device = on_host;
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
  *attributes = {};
  attributes->type = cudaMemoryTypeUnregistered;
  auto block = blocks().upper_bound(key_of(address));
  if (block == blocks().begin()) return cudaSuccess;
  --block;
  if (key_of(address) - block->first >= block->second.size_bytes) return cudaSuccess;
  attributes->type = block->second.type;
  attributes->devicePointer = const_cast<void*>(address);
  attributes->hostPointer = attributes->devicePointer;
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t size_bytes, cudaMemcpyKind) {
  std::memcpy(to, from, size_bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size_bytes, cudaMemcpyKind,
                            cudaStream_t) {
  std::memcpy(to, from, size_bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int) {
  *stream = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned int) {
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int) {
  *event = nullptr;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t) {
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) {
  return cudaSuccess;
}

} // extern "C"

namespace fundus::cuda {

void launch_thumbnail(const ThumbnailArguments& arguments, Stream) {
  emulation::run_thumbnail(arguments);
}

void launch_resample(const ResampleArguments& arguments, Stream) {
  emulation::run_resample(arguments);
}

void launch_column_sums(const ColumnSumArguments& arguments, Stream) {
  emulation::run_column_sums(arguments);
}

void launch_finish(const FinishArguments& arguments, TensorType type, Stream) {
  if (type == TensorType::fp16) {
    emulation::run_finish<__half>(arguments);
  } else {
    emulation::run_finish<float>(arguments);
  }
}

} // namespace fundus::cuda
