// What goes wrong inside the library; the C functions turn it into a status and a text.
#pragma once

#include <string>

#include "../include/minet.h"

namespace minet {

struct Failure {
  minet_status status;
  std::string text;
};

}  // namespace minet
