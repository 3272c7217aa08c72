// CRC-32 as in zlib, eight bytes at a time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace minet {

uint32_t checksum(const unsigned char *data, size_t bytes);

}  // namespace minet
