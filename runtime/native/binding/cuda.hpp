// Registers the CUDA preprocessing in the Python module; only in builds with FUNDUS_CUDA.
#pragma once

#include <nanobind/nanobind.h>

void bind_cuda(nanobind::module_& module);
