// A CUDA call that failed, and memory that a kernel cannot use, as exceptions.
#pragma once

#include <stdexcept>
#include <string>

namespace fundus::cuda {

// CUDA refused: no driver, no GPU, no memory, or a kernel of this or another program that failed.
class CudaError : public std::runtime_error {
 public:
  CudaError(int code, const std::string& message) : std::runtime_error(message), code_(code) {}
  int code() const noexcept { return code_; } // a cudaError_t

 private:
  int code_;
};

// Memory of the caller that is of the wrong kind or on another GPU; says what to do instead.
class MemoryKindError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

class FrameMemoryError : public MemoryKindError {
 public:
  using MemoryKindError::MemoryKindError;
};

class TensorMemoryError : public MemoryKindError {
 public:
  using MemoryKindError::MemoryKindError;
};

// Throws CudaError naming `call` unless `status`, a cudaError_t, is success.
void require_success(int status, const char* call);

} // namespace fundus::cuda
