// The arithmetic of prune for one entry, the same for CPU and CUDA: floats as integers that have the same order.
#pragma once

#include "chacha20.h"
#include "lanes.h"
#include "noise.h"
#include "privkernels/prune.h"

namespace privkernels {

constexpr int kLargestPattern = 64;  // m of N:M

template <class Bits>
PK_HD constexpr Bits sign_of() {
  return static_cast<Bits>(Bits{1} << (8 * sizeof(Bits) - 1));
}

// Magnitude bits of infinity; what is above them is NaN.
PK_HD uint64_t infinity_of(FloatFormat format) {
  switch (format) {
    case FloatFormat::kFloat16: return 0x7c00;
    case FloatFormat::kBFloat16: return 0x7f80;
    case FloatFormat::kFloat64: return uint64_t{0x7ff} << 52;
    default: return 0x7f800000;
  }
}

template <class Bits>
PK_HD Bits magnitude_bits(Bits bits) {
  return static_cast<Bits>(bits & static_cast<Bits>(~sign_of<Bits>()));
}

// An integer in the order of magnitudes, or of signed values; both zeros are one. NaN lies beyond the infinities.
template <bool magnitude, class Bits>
PK_HD Bits order_key(Bits bits) {
  const Bits plain = magnitude_bits(bits), sign = sign_of<Bits>();
  if (magnitude) return plain;
  return static_cast<Bits>((bits & sign) ? sign - plain : sign + plain);
}

// The bits that have this key; +0 for the key of both zeros.
template <class Bits>
PK_HD Bits bits_of_key(bool magnitude, Bits key) {
  const Bits sign = sign_of<Bits>();
  if (magnitude) return key;
  return static_cast<Bits>(key >= sign ? key - sign : sign | (sign - key));
}

// One more than the largest key that is not NaN's.
template <class Bits>
PK_HD uint64_t key_limit(bool magnitude, uint64_t infinity) {
  return (magnitude ? 0 : uint64_t{sign_of<Bits>()}) + infinity + 1;
}

// --- importances as doubles ---

struct PruneFloat32 {
  typedef uint32_t Bits;
  PK_HD double decode(Bits bits) { return static_cast<double>(from_bits(bits, 0.0f)); }
};

struct PruneBFloat16 {
  typedef uint16_t Bits;
  PK_HD double decode(Bits bits) { return PruneFloat32::decode(static_cast<uint32_t>(bits) << 16); }
};

struct PruneFloat16 {
  typedef uint16_t Bits;
  PK_HD double decode(Bits bits) {
    // Float16Format makes numbers of infinity and NaN, which wide bounds would hold.
    return (bits & 0x7c00) == 0x7c00 ? from_bits(uint64_t{0x7ff8} << 48, 0.0) : Float16Format::decode(bits);
  }
};

struct PruneFloat64 {
  typedef uint64_t Bits;
  PK_HD double decode(Bits bits) { return from_bits(bits, 0.0); }
};

// Whether an entry is kept. Without a branch on the importance or the word. `width` is high - low.
PK_HD bool kept_at_random(double importance, double low, double width, uint64_t word) {
  const double probability = width > 0 ? (importance - low) / width : 1.0;
  const double uniform = from_bits((word >> 12) | (uint64_t{1023} << 52), 0.0) - 1.0;  // exact
  return uniform < probability;
}

PK_HD bool within(double value, double low, double high) { return value >= low && value <= high; }

}  // namespace privkernels
