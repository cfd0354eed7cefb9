// What the CUDA kernels share with the host: every step of a kernel is a plain inline function, so
// that a C++ compiler without CUDA can run the same arithmetic over the same grid and test it.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define FUNDUS_HOST_DEVICE __host__ __device__
#else
#define FUNDUS_HOST_DEVICE
#endif

// Only the device's compiler knows the pragma.
#if defined(__CUDA_ARCH__)
#define FUNDUS_UNROLL _Pragma("unroll")
#else
#define FUNDUS_UNROLL
#endif

namespace fundus::cuda {

// std::min and std::max are no device functions without a compiler extension.
template <typename Number>
FUNDUS_HOST_DEVICE constexpr Number smaller(Number a, Number b) {
  return b < a ? b : a;
}

template <typename Number>
FUNDUS_HOST_DEVICE constexpr Number larger(Number a, Number b) {
  return a < b ? b : a;
}

template <typename Number>
FUNDUS_HOST_DEVICE constexpr Number divided_up(Number value, Number by) {
  return (value + by - 1) / by;
}

} // namespace fundus::cuda
