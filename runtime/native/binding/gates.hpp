// Registers the gates' measurements in the Python module.
#pragma once

#include <nanobind/nanobind.h>

void bind_gates(nanobind::module_& module);
