// The arithmetic of noisy_activations, the same for CPU and CUDA: IEEE operations one by one, no branch on a value.
// F is float or double. The functions on whole points (below) take one element at a time: CUDA's way, and the CPU
// tests' oracle.
#pragma once

#include "chacha20.h"
#include "lanes.h"
#include "noise.h"
#include "normal_quantile.h"
#include "privkernels/noisy_activations.h"

namespace privkernels {

// --- formats ---

template <class Format>
struct SingleActivation : Format {
  typedef float Real;
  typedef typename Format::Bits Bits;
  static constexpr double kLargestInput = Format::kLargest;
  PK_HD float load(Bits bits) { return static_cast<float>(Format::decode(bits)); }
  PK_HD Bits store(float value) { return Format::encode(round_to_format<Format>(static_cast<double>(value))); }
};

struct Float32Activation : Float32Format {
  typedef float Real;
  static constexpr double kLargestInput = Float32Format::kLargest;
  PK_HD float load(uint32_t bits) { return from_bits((bits & 0x7f800000u) != 0 ? bits : 0u, 0.0f); }
  PK_HD uint32_t store(float value) {
    const float largest = static_cast<float>(kLargest);
    return to_bits(larger(smaller(value, largest), -largest));
  }
};

struct Float64Activation {
  typedef double Real;
  typedef uint64_t Bits;
  static constexpr int kPrecision = 53, kMinExponent = -1022;
  static constexpr double kLargest = 1.7976931348623157e308, kLargestInput = 0x1p500;
  static constexpr bool kEncodeRounds = true;
  PK_HD double load(uint64_t bits) { return from_bits(bits, 0.0); }
  PK_HD uint64_t store(double value) { return to_bits(clamped(value, kLargest)); }
  PK_HD uint64_t encode(double value) { return to_bits(value); }
};

typedef SingleActivation<Float16Format> Float16Activation;
typedef SingleActivation<BFloat16Format> BFloat16Activation;

// g (z + K), rounded to the format.
template <class Format>
PK_HD typename Format::Bits store_on_grid(double value, int64_t noise, double granularity, double inverse) {
  const int64_t steps = nearest_integer(clamped(value * inverse, kLargestSteps));
  return Format::encode(round_to_format<Format>(exact_double(steps + noise) * granularity));
}

// --- roots and powers ---

// 1 / sqrt(d) by Newton's iteration: a division and a root would take several times as long. Within 2^-22.
PK_HD float inverse_root(float d) {
  const float half = 0.5f * d;
  float r = from_bits(0x5f3759dfu - (to_bits(d) >> 1), 0.0f);
  r = r * (1.5f - half * r * r);
  r = r * (1.5f - half * r * r);
  return r + r * (0.5f - half * r * r);
}

PK_HD double inverse_root(double d) {
  const double half = 0.5 * d;
  double r = from_bits((uint64_t{0x5fe6eb50} << 32 | 0xc7b537a9u) - (to_bits(d) >> 1), 0.0);
  for (int i = 0; i < 3; ++i) r = r * (1.5 - half * r * r);
  r = r + r * (0.5 - half * r * r);
  return r + r * (0.5 - half * r * r);
}

// d^-beta for d in [2^-41, 2^122] and beta in (0, 2], relative error below 1e-13: 2^(-beta log2 d) by the series of
// atanh and exp, as long as double needs them.
PK_HD double power_negative(double d, double beta) {
  const uint64_t bits = to_bits(d);
  const uint64_t kRoot = uint64_t{0x3fe6a09e} << 32 | 0x667f3bcdu;  // of sqrt(1/2)
  const int64_t exponent = static_cast<int64_t>((bits - kRoot + (uint64_t{1} << 62)) >> 52) - 1024;
  const double f = from_bits(bits - (static_cast<uint64_t>(exponent) << 52), 0.0);  // in [sqrt(1/2), sqrt(2))
  const double t = (f - 1.0) / (f + 1.0), square = t * t;
  double series = 1.0 / 23.0;
  for (int k = 21; k >= 1; k -= 2) series = series * square + 1.0 / k;
  const double log2 = exact_double(exponent) + 2.885390081777926814720 * (t * series);  // 2 / ln 2
  const double scaled = -beta * log2;
  const int64_t whole = nearest_integer(scaled);
  const double x = (scaled - exact_double(whole)) * 0.693147180559945309417;
  double power = 1.0;
  for (int k = 14; k >= 1; --k) power = 1.0 + power * x * (1.0 / k);
  return from_bits(to_bits(power) + (static_cast<uint64_t>(whole) << 52), 0.0);
}

enum class Beta : int { kHalf, kThreeQuarters, kOne, kGeneral };

PK_HD Beta beta_kind(double beta) {
  return beta == 0.5 ? Beta::kHalf : beta == 0.75 ? Beta::kThreeQuarters : beta == 1.0 ? Beta::kOne : Beta::kGeneral;
}

template <class F>
struct InversePower {
  F power, reciprocal;  // d^-beta, 1 / d
};

template <Beta beta, class F>
PK_HD InversePower<F> inverse_power(F d, double exponent) {
  if (beta == Beta::kGeneral) return {static_cast<F>(power_negative(static_cast<double>(d), exponent)), F(1) / d};
  const F root = inverse_root(d);
  const F reciprocal = root * root;
  if (beta == Beta::kHalf) return {root, reciprocal};
  if (beta == Beta::kOne) return {reciprocal, reciprocal};
  return {root * inverse_root(d * root), reciprocal};
}

// --- the parameters in the precision of the arithmetic ---

template <class F>
struct ActivationTerms {
  F low, high;     // bounds of the clamp
  F largest;       // of |x| that is accepted
  F alpha, gamma;  // of the sum of squares
  F slope;         // 2 alpha beta
  double beta;
  int64_t reach;  // window / 2, at most channels - 1
};

template <class Activation>
PK_HD ActivationTerms<typename Activation::Real> activation_terms(const NoisyActivationsArgs& args) {
  typedef typename Activation::Real F;
  const F infinite = static_cast<F>(from_bits(uint64_t{0x7ff00000} << 32, 0.0));
  const F bound = args.clip_kind == ActivationClip::kClamp ? static_cast<F>(args.clip) : infinite;
  const bool squared = args.window > 0 && args.clip_kind == ActivationClip::kNone;
  const int64_t reach = args.window / 2 < args.channels - 1 ? args.window / 2 : args.channels - 1;
  return {args.is_signed ? -bound : F(0),
          bound,
          static_cast<F>(squared && Activation::kLargestInput > 0x1p40 ? 0x1p40 : Activation::kLargestInput),
          static_cast<F>(args.alpha),
          static_cast<F>(args.gamma),
          static_cast<F>(2.0 * args.alpha * args.beta),
          args.beta,
          reach};
}

// Times 1 where the norm is not clipped. NaN fails the first comparison and becomes the lower bound: no NaN comes out.
template <class F>
PK_HD F clipped(F x, const ActivationTerms<F>& terms, F scale) {
  const F above = x > terms.low ? x : terms.low;
  return (above < terms.high ? above : terms.high) * scale;
}

// What an example's values are multiplied by, for the sum of their squares.
PK_HD double norm_scale(double squares, double clip, bool is_double) {
#if defined(__CUDA_ARCH__)
  const double norm = __dsqrt_rn(squares);
#else
  const double norm = __builtin_sqrt(squares);
#endif
  // Rounding the factor and the products must not lead above the clip.
  const double margin = is_double ? 1.0 - 0x1p-48 : 1.0 - 0x1p-22;
  return norm > clip ? clip / norm * margin : 1.0;
}

// --- noise ---

constexpr uint32_t kDrawsOfAttempt = 16, kFloatDraw = 8;  // grid noise takes draws 0 to 7 of an attempt

PK_HD float normal_noise(const NoisyActivationsArgs& args, uint64_t element) {
  const uint32_t draw = args.attempt * kDrawsOfAttempt + kFloatDraw;
  return normal_of_bits(half_spread_bits(args.key, element, draw, kPurposeNoisyActivations));
}

PK_HD int64_t grid_noise(const NoisyActivationsArgs& args, uint64_t element) {
  int64_t noise = 0;
  for (int t = 0; t < args.num_tables; ++t) {
    const uint32_t draw = args.attempt * kDrawsOfAttempt + static_cast<uint32_t>(t);
    const uint64_t word = spread_bits(args.key, element, draw, kPurposeNoisyActivations);
    noise = add_table<NoiseDistribution::kGaussian>(noise, word, args.tables[t], t == args.num_tables - 1);
  }
  return noise;
}

// --- one point (example, position), all channels ---

template <class Activation>
struct ActivationPoint {
  typedef typename Activation::Real F;
  const NoisyActivationsArgs& args;
  const ActivationTerms<F>& terms;
  int64_t origin, stride;  // of channel 0, and from channel to channel, in memory
  F scale;
};

template <class Activation>
PK_HD ActivationPoint<Activation> activation_point(const NoisyActivationsArgs& args,
                                                   const ActivationTerms<typename Activation::Real>& terms,
                                                   int64_t example, int64_t position, typename Activation::Real scale) {
  const int64_t first = example * args.channels * args.positions;
  return {args, terms, first + (args.channels_last ? position * args.channels : position),
          args.channels_last ? int64_t{1} : args.positions, scale};
}

template <class Activation>
PK_HD typename Activation::Real raw_at(const ActivationPoint<Activation>& point, int64_t channel) {
  typedef typename Activation::Bits Bits;
  return Activation::load(static_cast<const Bits*>(point.args.input)[point.origin + channel * point.stride]);
}

template <class Activation>
PK_HD typename Activation::Real clipped_at(const ActivationPoint<Activation>& point, int64_t channel) {
  return clipped(raw_at(point, channel), point.terms, point.scale);
}

// gamma + alpha times the sum of squares around a channel.
template <class Activation>
PK_HD typename Activation::Real denominator_at(const ActivationPoint<Activation>& point, int64_t channel) {
  typedef typename Activation::Real F;
  const int64_t reach = point.terms.reach, last = point.args.channels - 1;
  F sum = 0;
  for (int64_t j = channel > reach ? channel - reach : 0; j <= (last - channel < reach ? last : channel + reach); ++j) {
    const F a = clipped_at(point, j);
    sum = sum + a * a;
  }
  return point.terms.gamma + point.terms.alpha * sum;
}

template <Beta beta, class Activation>
PK_HD typename Activation::Real normalized_at(const ActivationPoint<Activation>& point, int64_t channel) {
  const auto a = clipped_at(point, channel);
  if (point.args.window == 0) return a;
  return a * inverse_power<beta>(denominator_at(point, channel), point.terms.beta).power;
}

// The gradient with respect to a, at one channel.
template <Beta beta, class Activation>
PK_HD typename Activation::Real gradient_at(const ActivationPoint<Activation>& point, int64_t channel) {
  typedef typename Activation::Real F;
  const F* grad = static_cast<const F*>(point.args.grad) + point.origin;
  if (point.args.window == 0) return grad[channel * point.stride];
  const int64_t reach = point.terms.reach, last = point.args.channels - 1;
  F own = 0, sum = 0;
  for (int64_t i = channel > reach ? channel - reach : 0; i <= (last - channel < reach ? last : channel + reach); ++i) {
    const InversePower<F> inverse = inverse_power<beta>(denominator_at(point, i), point.terms.beta);
    const F term = grad[i * point.stride] * inverse.power;
    sum = sum + term * clipped_at(point, i) * inverse.reciprocal;
    own = i == channel ? term : own;
  }
  return own - point.terms.slope * (clipped_at(point, channel) * sum);
}

// From the gradient with respect to a to the one with respect to x: `along` is (a . gradient) / clip^2 over the
// example where its norm was clipped, else 0.
template <class F>
PK_HD F input_gradient(F raw, F gradient, F scale, F along, const ActivationTerms<F>& terms) {
  const F through = scale * (gradient - clipped(raw, terms, scale) * along);
  return raw >= terms.low && raw <= terms.high ? through : F(0);
}

}  // namespace privkernels
