#include "fundus/version.hpp"

namespace fundus {

std::string_view version() noexcept {
  return FUNDUS_VERSION;
}

} // namespace fundus
