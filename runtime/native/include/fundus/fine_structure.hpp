// The fine structure of a photograph's cells, by which two photographs are told apart. Equal to the
// Python reference (fundus_runtime.gates.structure_reference) but for the order in which a mean is
// summed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fundus {

// Green of some cells without the mean around each, bounded, without its own mean. `green`,
// `inside` and `cells` are kGateCells x kGateCells, row by row; green is nought outside. `values`
// holds as many as `cells` has ones, in their order. No allocation.
void fine_structure(const std::uint16_t* green, const std::uint8_t* inside,
                    const std::uint8_t* cells, double* values) noexcept;

} // namespace fundus
