// Reading float32, float16 and bfloat16 as float, by their bits: exact, denormals included, whatever the processor has.
#pragma once

#include "lanes.h"

namespace privkernels {

struct SingleBits {
  typedef uint32_t Bits;
  PK_HD float decode(Bits bits) { return from_bits(bits, 0.0f); }
};

struct BrainBits {
  typedef uint16_t Bits;
  PK_HD float decode(Bits bits) { return from_bits(static_cast<uint32_t>(bits) << 16, 0.0f); }
};

struct HalfBits {
  typedef uint16_t Bits;
  PK_HD float decode(Bits bits) {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t positive = static_cast<uint32_t>(bits & 0x7fffu) << 13;
    // Exponents are biased by 15 and by 127. A denormal is a number of units of 2^-24.
    const uint32_t normal = positive + (112u << 23) + (positive >= 0x0f800000u ? 112u << 23 : 0u);
    const float units = static_cast<float>(static_cast<int32_t>(bits & 0x3ffu)) * 5.9604645e-8f;
    return from_bits(sign | (positive >= 0x00800000u ? normal : to_bits(units)), 0.0f);
  }
};

}  // namespace privkernels
