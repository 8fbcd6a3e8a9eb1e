// Whole numbers of 64 and 128 bits as the draws need them: exact sums, and a uniform scaled to a range.
#pragma once

#include "platform.h"

namespace privkernels {

__extension__ typedef unsigned __int128 Wide;

PK_HD uint64_t low_half(Wide value) { return static_cast<uint64_t>(value); }
PK_HD uint64_t high_half(Wide value) { return static_cast<uint64_t>(value >> 64); }

// floor(bits * total / 2^64): uniform below total up to 2^-64 in every cumulative probability.
PK_HD uint64_t scale_to(uint64_t bits, uint64_t total) {
#if defined(__CUDA_ARCH__)
  return __umul64hi(bits, total);
#else
  return high_half(static_cast<Wide>(bits) * total);
#endif
}

// The same for a total below 2^32, from the two halves of the bits.
PK_HD uint32_t scale_to_word(uint32_t low, uint32_t high, uint32_t total) {
  const uint64_t carry = (static_cast<uint64_t>(low) * total) >> 32;
  return static_cast<uint32_t>((static_cast<uint64_t>(high) * total + carry) >> 32);
}

// floor(bits * total / 2^128): uniform below total up to 2^-128 in every cumulative probability.
PK_HD Wide scale_to_wide(Wide bits, Wide total) {
  const Wide low = static_cast<Wide>(low_half(bits)) * low_half(total);
  const Wide cross = static_cast<Wide>(low_half(bits)) * high_half(total);
  const Wide other = static_cast<Wide>(high_half(bits)) * low_half(total);
  const Wide middle = static_cast<Wide>(high_half(low)) + low_half(cross) + low_half(other);
  return static_cast<Wide>(high_half(bits)) * high_half(total) + high_half(cross) + high_half(other) +
         high_half(middle);
}

}  // namespace privkernels
