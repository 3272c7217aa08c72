#include "checksum.h"

#include <array>

namespace minet {
namespace {

using Tables = std::array<std::array<uint32_t, 256>, 8>;

// table[k][b]: what byte b does to the sum when k more bytes follow it.
constexpr Tables make_tables() {
  Tables table{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t value = b;
    for (int bit = 0; bit < 8; ++bit) value = value & 1 ? 0xedb88320u ^ (value >> 1) : value >> 1;
    table[0][b] = value;
  }
  for (size_t k = 1; k < 8; ++k)
    for (uint32_t b = 0; b < 256; ++b) table[k][b] = table[0][table[k - 1][b] & 255] ^ (table[k - 1][b] >> 8);
  return table;
}

constexpr Tables table = make_tables();

}  // namespace

uint32_t checksum(const unsigned char *data, size_t bytes) {
  uint32_t sum = ~0u;
  for (; bytes >= 8; data += 8, bytes -= 8) {
    uint32_t next = 0;
    for (unsigned k = 0; k < 8; ++k) {
      const unsigned mixed = k < 4 ? (data[k] ^ (sum >> (8 * k))) & 255 : data[k];
      next ^= table[7 - k][mixed];
    }
    sum = next;
  }
  for (; bytes; ++data, --bytes) sum = table[0][(sum ^ *data) & 255] ^ (sum >> 8);
  return ~sum;
}

}  // namespace minet
