// The version that this core was built as; it equals the Python distribution's.
#pragma once

#include <string_view>

namespace fundus {

std::string_view version() noexcept;

} // namespace fundus
