// Built with the flags that CMakeLists.txt gives this file.
#define FUNDUS_KERNELS kAvx512Kernels
#include "kernel_loops.hpp"
