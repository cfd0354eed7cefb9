// For every processor of the architecture; on 64-bit ARM that includes NEON.
#define FUNDUS_KERNELS kBaselineKernels
#include "kernel_loops.hpp"
