// CUDA's memory, events and devices with owners, and which memory of the caller a kernel can use.
#pragma once

#include <cstddef>

#include "fundus/cuda/frame_samples.hpp"
#include "fundus/cuda/preprocessor.hpp"

struct CUevent_st;

namespace fundus::cuda {

// Makes a device current and, at the end, the one before it.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int device_;
  int previous_ = 0;
};

// Device memory. Its owner makes the device current first, also before the end.
class DeviceBuffer {
 public:
  explicit DeviceBuffer(std::size_t size_bytes);
  ~DeviceBuffer();
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  template <typename Value>
  Value* as() const noexcept {
    return static_cast<Value*>(data_);
  }

 private:
  void* data_ = nullptr;
};

// Pinned host memory that the GPU sees too.
class PinnedBuffer {
 public:
  explicit PinnedBuffer(std::size_t size_bytes) { reserve(size_bytes); }
  ~PinnedBuffer();
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  // Grows where it is too small; what was in it is then gone.
  void reserve(std::size_t size_bytes);
  template <typename Value>
  Value* on_host() const noexcept {
    return static_cast<Value*>(host_);
  }
  template <typename Value>
  Value* on_device() const noexcept {
    return static_cast<Value*>(device_);
  }

 private:
  void free() noexcept;
  void* host_ = nullptr;
  void* device_ = nullptr;
  std::size_t size_bytes_ = 0;
};

// A point in a stream's work.
class Event {
 public:
  Event();
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(Stream stream);
  void record_if_possible(Stream stream) noexcept;
  void wait() const;
  void wait_if_possible() const noexcept;
  void hold_back(Stream stream) const; // until this point has been passed

 private:
  CUevent_st* event_ = nullptr;
};

// The frame as the kernels of `device` see it. Throws FrameMemoryError where they cannot.
FrameSamples samples_on_device(const FrameView& frame, int device);

// Throws TensorMemoryError unless the kernels of `device` can write `size` x `size` x 3 values
// there.
void require_tensor(const TensorView& tensor, int size, int device);

} // namespace fundus::cuda
