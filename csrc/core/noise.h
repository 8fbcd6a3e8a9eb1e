// The arithmetic of noise_add for one element, the same for CPU and CUDA. Straight-line integer and IEEE double
// operations: compilers turn loops over it into vector code, and every variant gives the same bits.
#pragma once

#include "chacha20.h"
#include "lanes.h"
#include "privkernels/noise_add.h"

namespace privkernels {

constexpr double kLargestSteps = 1125899906842624.0;         // 2^50
constexpr uint64_t kShiftBits = uint64_t{0x43380000} << 32;  // of 1.5 * 2^52, which has a unit in its last place of 1

// 2^exponent, -1022 to 1023.
PK_HD double power_of_two(int exponent) { return from_bits(static_cast<uint64_t>(exponent + 1023) << 52, 0.0); }

PK_HD double clamped(double value, double largest) {
  value = value > -largest ? value : -largest;
  return value < largest ? value : largest;
}

// The nearest integer, half to even, for |value| <= 2^51: adding 1.5 * 2^52 rounds and leaves it in the low bits.
PK_HD int64_t nearest_integer(double value) {
  return static_cast<int64_t>(to_bits(value + from_bits(kShiftBits, 0.0)) - kShiftBits);
}

// The same in the other direction, exact for |value| <= 2^51.
PK_HD double exact_double(int64_t value) {
  return from_bits(static_cast<uint64_t>(value) + kShiftBits, 0.0) - from_bits(kShiftBits, 0.0);
}

// --- formats: decode is exact; encode takes a number that the format holds, or rounds it where kEncodeRounds ---

struct Float32Format {
  typedef uint32_t Bits;
  static constexpr int kPrecision = 24, kMinExponent = -126;
  static constexpr double kLargest = 340282346638528859811704183484516925440.0;
  static constexpr bool kEncodeRounds = true;  // one conversion from double: half to even, and never denormal here

  PK_HD bool finite(Bits bits) { return (bits & 0x7f800000u) != 0x7f800000u; }
  // Denormals (below 2^-126) are read as 0, which the grid rounds them to anyway: some processors take longer for them.
  PK_HD double decode(Bits bits) { return static_cast<double>(from_bits((bits & 0x7f800000u) != 0 ? bits : 0u, 0.0f)); }
  PK_HD Bits encode(double value) { return to_bits(static_cast<float>(value)); }
};

struct BFloat16Format {
  typedef uint16_t Bits;
  static constexpr int kPrecision = 8, kMinExponent = -126;
  static constexpr double kLargest = 338953138925153547590470800371487866880.0;
  static constexpr bool kEncodeRounds = false;

  PK_HD bool finite(Bits bits) { return (bits & 0x7f80u) != 0x7f80u; }
  PK_HD double decode(Bits bits) { return Float32Format::decode(static_cast<uint32_t>(bits) << 16); }
  PK_HD Bits encode(double value) { return static_cast<Bits>(Float32Format::encode(value) >> 16); }
};

struct Float16Format {
  typedef uint16_t Bits;
  static constexpr int kPrecision = 11, kMinExponent = -14;
  static constexpr double kLargest = 65504.0;
  static constexpr bool kEncodeRounds = false;

  PK_HD bool finite(Bits bits) { return (bits & 0x7c00u) != 0x7c00u; }
  // By integers, so that flushing of float32 denormals does not reach float16's.
  PK_HD double decode(Bits bits) {
    const uint32_t field = (bits >> 10) & 31u;
    const int32_t fraction = static_cast<int32_t>((bits & 0x3ffu) + (field != 0 ? 0x400u : 0u));
    const double magnitude = static_cast<double>(fraction) * power_of_two(static_cast<int>(field + (field == 0)) - 25);
    return (bits & 0x8000u) != 0 ? -magnitude : magnitude;
  }
  PK_HD Bits encode(double value) {
    const uint32_t single = Float32Format::encode(value);
    const uint32_t sign = (single >> 16) & 0x8000u;
    const uint32_t positive = single & 0x7fffffffu;
    const uint32_t normal = (positive >> 13) - (112u << 10);  // exponents are biased by 127 and by 15
    // Below 2^-14 the bits count units of 2^-24, all of them exact in float32.
    const bool tiny = positive < 0x38800000u;
    const float units = from_bits(tiny ? positive : 0u, 0.0f) * 16777216.0f;
    return static_cast<Bits>(sign | (tiny ? static_cast<uint32_t>(static_cast<int32_t>(units)) : normal));
  }
};

// `value` kept in Format's finite range and, unless encode does that, rounded once, half to even, to its precision.
template <class Format>
PK_HD double round_to_format(double value) {
  const double inside = clamped(value, Format::kLargest);
  if (Format::kEncodeRounds) return inside;
  const uint64_t field = (to_bits(inside) >> 52) & 0x7ffu;
  constexpr uint64_t kSmallest = Format::kMinExponent + 1023;
  const uint64_t exponent = field < kSmallest ? kSmallest : field;
  // 1.5 * 2^52 units in the last place that Format has at this exponent: the sum is rounded to such units.
  const double shift = from_bits(((exponent + 53 - Format::kPrecision) << 52) | (uint64_t{1} << 51), 0.0);
  return (inside + shift) - shift;
}

// --- the noise ---

static inline Status check_noise_tables(const NoiseTable* tables, int num_tables) {
  const auto invalid = [](const char* message) { return Status{StatusCode::kInvalidArgument, -1, -1, message}; };
  if (num_tables < 1 || num_tables > kMaxNoiseTables) return invalid("noise needs 1 to 8 tables");
  int64_t largest = 0;
  for (int t = 0; t < num_tables; ++t) {
    const NoiseTable& table = tables[t];
    if (table.index_bits < 1 || table.index_bits > 14) return invalid("noise needs tables of 2 to 16384 entries");
    if (table.multiplier < 1 || table.multiplier > (int64_t{1} << 40)) {
      return invalid("noise needs multipliers in [1, 2**40]");
    }
    largest += table.multiplier * ((int64_t{1} << table.index_bits) - 1);
  }
  return largest < int64_t{1} << 49 ? Status{} : invalid("noise must be below 2**49 steps");
}

// The outcome of an alias table; `shift` is index_bits + sign_bits. A select, not a branch.
PK_HD uint64_t alias_outcome(uint64_t word, const uint64_t* entries, uint64_t mask, int shift) {
  const uint64_t entry = entries[word & mask];
  return ((word >> shift) < (entry >> shift) ? word : entry) & mask;
}

// K after one more table. `last` says that this is the Laplace's top table, which carries the sign.
template <NoiseDistribution distribution>
PK_HD int64_t add_table(int64_t sum, uint64_t word, const NoiseTable& table, bool last) {
  const uint64_t mask = (uint64_t{1} << table.index_bits) - 1;
  if (distribution == NoiseDistribution::kGaussian) {
    const int64_t value = static_cast<int64_t>(alias_outcome(word, table.entries, mask, table.index_bits + 1));
    const int64_t sign = -static_cast<int64_t>((word >> table.index_bits) & 1);
    return sum + ((value ^ sign) - sign) * table.multiplier;
  }
  const int64_t value = static_cast<int64_t>(alias_outcome(word, table.entries, mask, table.index_bits));
  if (!last) return sum + value * table.multiplier;
  return (sum + (value >> 1) * table.multiplier) ^ -(value & 1);
}

#if defined(PK_LANES)
// K of all 128 elements of a group; table t takes draw first_draw + t. __restrict: what is written is no table, so that
// the loops become vector code.
template <NoiseDistribution distribution>
PK_HD void group_noise(const uint32_t* key, const NoiseTable* tables, int num_tables, uint64_t group,
                       uint32_t first_draw, uint32_t purpose, int64_t* __restrict noise) {
  uint32_t low[kSpreadGroup], high[kSpreadGroup];
  for (int i = 0; i < kSpreadGroup; ++i) noise[i] = 0;
  for (int t = 0; t < num_tables; ++t) {
    const NoiseTable table = tables[t];
    const bool last = t == num_tables - 1;
    spread_group(key, group, first_draw + static_cast<uint32_t>(t), purpose, low, high);
    for (int i = 0; i < kSpreadGroup; ++i) {
      noise[i] = add_table<distribution>(noise[i], (static_cast<uint64_t>(high[i]) << 32) | low[i], table, last);
    }
  }
}
#endif

// output = round(g (z + K)) for input bits; `inverse` is 1 / g.
template <class Format>
PK_HD typename Format::Bits add_noise(typename Format::Bits input, int64_t noise, double granularity, double inverse) {
  const int64_t steps = nearest_integer(clamped(Format::decode(input) * inverse, kLargestSteps));
  return Format::encode(round_to_format<Format>(exact_double(steps + noise) * granularity));
}

}  // namespace privkernels
