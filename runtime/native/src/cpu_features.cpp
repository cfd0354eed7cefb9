#include "fundus/cpu_features.hpp"

#include <cstdint>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace fundus {

#if defined(__x86_64__) || defined(__i386__)

namespace {

struct Leaf {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// All zero where the processor does not know the leaf or subleaf, so that its features read as
// absent.
Leaf read_leaf(std::uint32_t leaf, std::uint32_t subleaf) {
  Leaf r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

bool bit(std::uint32_t word, unsigned index) {
  return ((word >> index) & 1U) != 0;
}

// XCR0: the register sets that the operating system saves on a context switch. Spelled as machine
// code's mnemonic because the compiler's _xgetbv needs -mxsave for the whole file.
std::uint64_t saved_registers(bool os_uses_xsave) {
  if (!os_uses_xsave) return 0;
  std::uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

constexpr std::uint64_t kAvxRegisters = 0x6;     // XMM, upper halves of YMM
constexpr std::uint64_t kAvx512Registers = 0xE6; // with the mask registers and ZMM
constexpr std::uint64_t kAmxRegisters = 0x60000; // tile configuration and tile data

} // namespace

std::vector<CpuFeature> cpu_features() {
  const Leaf basic = read_leaf(1, 0);
  const Leaf extended = read_leaf(7, 0);
  const Leaf more = extended.eax >= 1 ? read_leaf(7, 1) : Leaf{};

  const std::uint64_t saved = saved_registers(bit(basic.ecx, 27));
  const bool avx = (saved & kAvxRegisters) == kAvxRegisters && bit(basic.ecx, 28);
  const bool avx512 = avx && (saved & kAvx512Registers) == kAvx512Registers;
  // Linux also asks a process to request the tiles before their first use (arch_prctl); whoever
  // brings AMX code does so.
  const bool amx = (saved & kAmxRegisters) == kAmxRegisters;

  return {
      {"sse4_1", bit(basic.ecx, 19)},
      {"avx2", avx && bit(extended.ebx, 5)},
      {"fma", avx && bit(basic.ecx, 12)},
      {"f16c", avx && bit(basic.ecx, 29)},
      {"avx512f", avx512 && bit(extended.ebx, 16)},
      {"avx512bw", avx512 && bit(extended.ebx, 30)},
      {"avx512_vnni", avx512 && bit(extended.ecx, 11)},
      {"avx_vnni", avx && bit(more.eax, 4)},
      {"avx512_bf16", avx512 && bit(more.eax, 5)},
      {"amx_int8", amx && bit(extended.edx, 25)},
  };
}

#elif defined(__aarch64__)

std::vector<CpuFeature> cpu_features() {
#if defined(__linux__)
  const unsigned long first = getauxval(AT_HWCAP);
  const unsigned long second = getauxval(AT_HWCAP2);
  // The bits are a stable kernel interface; older headers lack the names of the newer ones.
  constexpr unsigned long kI8mm = 1UL << 13;
  constexpr unsigned long kBf16 = 1UL << 14;
  return {
      {"asimd", (first & HWCAP_ASIMD) != 0},     {"asimddp", (first & HWCAP_ASIMDDP) != 0},
      {"asimdhp", (first & HWCAP_ASIMDHP) != 0}, {"i8mm", (second & kI8mm) != 0},
      {"bf16", (second & kBf16) != 0},
  };
#else
  return {{"asimd", true}}; // part of the base architecture; the rest cannot be asked for here
#endif
}

#else

std::vector<CpuFeature> cpu_features() {
  return {};
}

#endif

} // namespace fundus
