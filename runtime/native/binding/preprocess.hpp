// Registers the preprocessing in the Python module.
#pragma once

#include <nanobind/nanobind.h>

void bind_preprocess(nanobind::module_& module);
