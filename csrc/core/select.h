// The arithmetic of em_select: a score's weight as an integer of 80 bits, and the bits that draw.
//
// Written once for a double (CUDA threads, scalar code) and for a vector of doubles (CPU lanes), one IEEE 754
// operation per lane at a time and nothing contracted, as lanes.h says of floats.
#pragma once

#include "chacha20.h"
#include "lanes.h"
#include "wide.h"

namespace privkernels {

constexpr int kWeightBits = 80;                   // a weight of 1 is the integer 2^80
constexpr int kLimbBits = 40;                     // in two limbs, both exact in a double
constexpr double kSmallestExponent = -200.0;      // log2 of a weight is cut here; below -80 its integer is 0
constexpr double kLargestScore = 0x1p1022;        // beyond it a difference of two scores could overflow
constexpr double kLargestMultiplier = 1e300;      // so that multiplier * log2(e) is finite
constexpr double kLog2E = 1.4426950408889634074;  // log2(e)
constexpr int64_t kSelectBlock = 128;             // candidates whose weights are summed together

#if defined(PK_LANES)
// As wide as FloatLanes, so with half as many lanes.
typedef double DoubleLanes __attribute__((vector_size(PK_LANES * 4)));
typedef uint64_t WordLanes __attribute__((vector_size(PK_LANES * 4)));

PK_HD WordLanes to_bits(DoubleLanes value) { return reinterpret_cast<WordLanes>(value); }
PK_HD DoubleLanes from_bits(WordLanes bits, DoubleLanes /*like*/) { return reinterpret_cast<DoubleLanes>(bits); }
#endif

// 2^(x + 40) for x in [-200, 0], relative error below 2^-50; exact at 0.
template <class F>
PK_HD F exp2_scaled(F x) {
  // Adding 1.5 * 2^52 rounds to the nearest integer and leaves it in the low bits of the sum.
  const double shift = 6755399441055744.0;
  const F shifted = x + shift;
  const F f = x - (shifted - shift);  // exact, in [-1/2, 1/2]
  // 2^f = 1 + f q(f), degree 10, relative minimax error 2^-51.8 with these rounded coefficients.
  const F f2 = f * f;
  const F f4 = f2 * f2;
  const F c01 = f * 2.4022650695909506e-01 + 6.931471805599498e-01;
  const F c23 = f * 9.618129107848525e-03 + 5.550410866445835e-02;
  const F c45 = f * 1.5403530136579258e-04 + 1.3333558228528347e-03;
  const F c67 = f * 1.321559369500251e-06 + 1.5252658183281915e-05;
  const F c89 = f * 7.046906312143922e-09 + 1.0208518111835072e-07;
  const F high = (c89 * f2 + c67) * f2 + c45;
  const F q = high * f4 + (c23 * f2 + c01);
  const F power = q * f + 1.0;
  // The low bits of `shifted` hold the integer; moved up, they are added to the exponent.
  return from_bits(to_bits(power) + ((to_bits(shifted) + kLimbBits) << 52), power);
}

// The whole part of value in [0, 2^40], as an integer and, in `whole`, as a double. Every path gives the same.
PK_HD uint64_t whole_part(double value, double& whole) {
  const uint64_t integer = static_cast<uint64_t>(static_cast<int64_t>(value));
  whole = static_cast<double>(static_cast<int64_t>(integer));
  return integer;
}

#if defined(PK_LANES)
PK_HD WordLanes whole_part(DoubleLanes value, DoubleLanes& whole) {
#if defined(__AVX512DQ__)
  typedef int64_t SignedLanes __attribute__((vector_size(PK_LANES * 4)));
  const SignedLanes integer = __builtin_convertvector(value, SignedLanes);
  whole = __builtin_convertvector(integer, DoubleLanes);
  return reinterpret_cast<WordLanes>(integer);
#else
  // Adding 2^52 rounds to the nearest integer, which is one too many where it lies above.
  const double shift = 4503599627370496.0;
  const DoubleLanes nearest = (value + shift) - shift;
  whole = nearest > value ? nearest - 1.0 : nearest;
  return to_bits(whole + shift) & 0xfffffffffffffull;
#endif
}
#endif

// floor(2^(exponent + 80)) = high * 2^40 + low, both limbs exact; high <= 2^40.
template <class I>
struct Weight {
  I high, low;
};

template <class F>
PK_HD auto integer_weight_of(F score, double largest, double scale) -> Weight<decltype(to_bits(score))> {
  F exponent = (score - largest) * scale;
  // Also where a removed candidate's -infinity meets a multiplier of 0: the comparison is false for NaN.
  exponent = exponent > F{} + kSmallestExponent ? exponent : F{} + kSmallestExponent;
  const F scaled = exp2_scaled(exponent);
  F whole, rest;
  Weight<decltype(to_bits(score))> weight;
  weight.high = whole_part(scaled, whole);
  weight.low = whole_part((scaled - whole) * 0x1p40, rest);
  return weight;
}

PK_HD Wide wide_weight(uint64_t high, uint64_t low) { return (static_cast<Wide>(high) << kLimbBits) + low; }

// The exponential mechanism: 128 uniform bits for one (segment, peel).
PK_HD Wide select_bits(const uint32_t* key, uint64_t segment, uint32_t peel) {
  uint32_t words[16];
  addressed_block(key, segment, peel, kPurposeEmSelect, words);
  return (static_cast<Wide>(element_bits(words, 1)) << 64) | element_bits(words, 0);
}

// Permute-and-flip: 256 uniform bits for one candidate, in eight words of a block that serves two of them.
struct Flip {
  uint64_t high, low;  // the coin's 80 bits, in limbs as a weight's
  Wide priority;
};

// words: eight, `stride` apart.
PK_HD Flip flip_of(const uint32_t* words, int64_t stride) {
  const auto word = [&](int i) { return static_cast<uint64_t>(words[i * stride]); };
  Flip flip;
  flip.low = word(0) | ((word(1) & 0xffu) << 32);
  flip.high = (word(1) >> 8) | ((word(2) & 0xffffu) << 24);
  flip.priority = (static_cast<Wide>(word(4) | (word(5) << 32)) << 64) | (word(6) | (word(7) << 32));
  return flip;
}

// The accepted candidate with the smallest priority so far; index < 0 while there is none.
struct Accepted {
  Wide priority;
  int64_t index;
};

PK_HD Accepted none_accepted() { return {~Wide{0}, -1}; }

// Takes a candidate into account without a branch on its score. Candidates come in ascending order, so that the
// lower index wins a tie.
PK_HD void consider(Accepted& best, const Flip& flip, uint64_t high, uint64_t low, int64_t index) {
  const bool heads = (flip.high < high) | ((flip.high == high) & (flip.low < low));
  const bool first = (best.index < 0) | (flip.priority < best.priority);
  const uint64_t take = -static_cast<uint64_t>(heads & first);
  const uint64_t high_priority = (high_half(flip.priority) & take) | (high_half(best.priority) & ~take);
  const uint64_t low_priority = (low_half(flip.priority) & take) | (low_half(best.priority) & ~take);
  best.priority = (static_cast<Wide>(high_priority) << 64) | low_priority;
  best.index =
      static_cast<int64_t>((static_cast<uint64_t>(index) & take) | (static_cast<uint64_t>(best.index) & ~take));
}

}  // namespace privkernels
