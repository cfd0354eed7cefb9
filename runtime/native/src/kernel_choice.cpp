// Which of the built kernels this process may run.
#include <string_view>

#include "fundus/cpu_features.hpp"
#include "kernels.hpp"

namespace fundus {

namespace {

#if defined(FUNDUS_X86_KERNELS)
bool has(std::string_view name) {
  for (const CpuFeature& feature : cpu_features())
    if (feature.name == name) return feature.usable;
  return false;
}
#endif

const Kernels* usable_kernels(KernelSet set) {
#if defined(FUNDUS_X86_KERNELS)
  static const bool avx2 = has("avx2");
  static const bool avx512 = avx2 && has("avx512f") && has("avx512bw");
  if (set == KernelSet::avx512) return avx512 ? &kAvx512Kernels : nullptr;
  if (set == KernelSet::avx2) return avx2 ? &kAvx2Kernels : nullptr;
  if (set == KernelSet::best && avx512) return &kAvx512Kernels;
  if (set == KernelSet::best && avx2) return &kAvx2Kernels;
#endif
  return set == KernelSet::best || set == KernelSet::baseline ? &kBaselineKernels : nullptr;
}

} // namespace

const Kernels* kernels_of(KernelSet set) noexcept {
  return usable_kernels(set);
}

bool kernel_set_usable(KernelSet set) noexcept {
  return kernels_of(set) != nullptr;
}

} // namespace fundus
