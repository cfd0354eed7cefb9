// Which vector instructions this process may use: the processor has them and the operating system
// saves their registers. Feature names are those of Linux's /proc/cpuinfo on both architectures.
#pragma once

#include <string_view>
#include <vector>

namespace fundus {

struct CpuFeature {
  std::string_view name; // static storage
  bool usable;
};

// The features that decide which kernels are fast or exact here, in a fixed order: an x86 processor
// lists x86 names, an ARM one ARM names, any other architecture none. Takes microseconds; throws
// only std::bad_alloc.
std::vector<CpuFeature> cpu_features();

} // namespace fundus
