// fundus_runtime._native: the core as Python sees it. Converts types and nothing else.
#include <nanobind/nanobind.h>

#include "cuda.hpp"
#include "fundus/cpu_features.hpp"
#include "fundus/version.hpp"
#include "gates.hpp"
#include "preprocess.hpp"

namespace nb = nanobind;

NB_MODULE(_native, module) {
  module.doc() = "The native core of fundus_runtime.";
  module.def(
      "version",
      [] {
        const auto version = fundus::version();
        return nb::str(version.data(), version.size());
      },
      "Version the core was built as.");
  module.def(
      "cpu_features",
      [] {
        nb::dict features;
        for (const auto& feature : fundus::cpu_features()) {
          features[nb::str(feature.name.data(), feature.name.size())] = feature.usable;
        }
        return features;
      },
      nb::sig("def cpu_features() -> dict[str, bool]"),
      "Vector instruction sets of this machine, by their /proc/cpuinfo names, and whether this\n"
      "process may use them: the processor has them and the operating system saves their state.");
  bind_preprocess(module);
  bind_gates(module);
#if defined(FUNDUS_CUDA)
  bind_cuda(module);
#endif
}
