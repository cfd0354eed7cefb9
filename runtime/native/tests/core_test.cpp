// The core as a C++ robot stack uses it: no Python anywhere.
#include <cstdio>
#include <map>
#include <string_view>

#include "fundus/cpu_features.hpp"
#include "fundus/version.hpp"

namespace {

int failures = 0;

void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "FAILED: %s\n", what);
  ++failures;
}

void wider_registers_imply_narrower_ones(const std::map<std::string_view, bool>& usable) {
  const auto has = [&](std::string_view name) {
    const auto found = usable.find(name);
    return found != usable.end() && found->second;
  };
  check(!has("avx512f") || has("avx2"), "avx512f comes with avx2");
  check(!has("avx512_vnni") || has("avx512f"), "avx512_vnni comes with avx512f");
  check(!has("avx2") || has("sse4_1"), "avx2 comes with sse4_1");
  check(!has("asimddp") || has("asimd"), "asimddp comes with asimd");
}

} // namespace

int main() {
  const auto features = fundus::cpu_features();
  std::map<std::string_view, bool> usable;
  for (const auto& feature : features) usable[feature.name] = feature.usable;
  check(usable.size() == features.size(), "every feature is named once");
#if defined(__x86_64__) || defined(__aarch64__)
  check(!features.empty(), "this architecture's features are listed");
#endif
  wider_registers_imply_narrower_ones(usable);
  check(!fundus::version().empty(), "the core knows its version");
  return failures == 0 ? 0 : 1;
}
