// The arithmetic of kde_em: the kernel of one member at one grid point, and the draw from the scores.
//
//   K(t) = Phi(t + h) - Phi(t - h),   t = (r - theta) / b,   h = window_ratio / 2,   0 < K <= K(0) = w_max
//
// is evaluated divided by w_max, so that its values lie in [0, 1] whatever the window.
#pragma once

#include <cmath>

#include "lanes.h"
#include "wide.h"

namespace privkernels {

constexpr int kSeriesDegree = 4;                 // what is left out is below 2e-8
constexpr float kSeriesLimit = 1.0f;             // largest window_ratio for the series
constexpr float kLargestSquare = 120.0f;         // beyond it the kernel is below 2^-100; keeps 0 * inf away
constexpr float kLargestRoot = 10.954451f;       // of it
constexpr float kLargestFloat = 3.40282347e38f;  // FLT_MAX
// Between these bandwidths neither kBaseTwo / b nor (r - theta) * kBaseTwo / b loses accuracy: the quotient is a
// normal float, and where r - theta overflows to infinity K is zero to float accuracy for every window allowed.
constexpr float kSmallestBandwidth = 1.17549435e-38f;  // FLT_MIN
constexpr float kLargestBandwidth = 1.26765060e30f;    // 2^100
constexpr double kSmallestWindow = 1e-6;
constexpr double kLargestWindow = 1e6;
constexpr int kMemberBlock = 8;  // members are summed in blocks, which bounds the rounding error of the sum

// The kernel for one window_ratio. With x = t * sqrt(log2(e) / 2), the Gaussian is 2^(-x^2).
struct KdeKernel {
  float series[kSeriesDegree];  // K / (w_max 2^(-s)) = 1 + s (series[0] + s (series[1] + ...)), s = x^2
  float half;                   // h * sqrt(log2(e) / 2)
  float inverse_peak;           // 1 / w_max
  int use_series;
  double peak;  // w_max = 2 Phi(h) - 1
};

// x = t * kBaseTwo
constexpr double kBaseTwo = 0.84932180028801904272;  // sqrt(log2(e) / 2)

// erfc(z) = 2^(-x^2) v P(v), v = 1 / (1 + z / 2), for z >= 0; absolute error 1.2e-8. x = z * sqrt(log2(e)).
template <class F>
PK_HD F half_erfc(F any) {
  const F x = smaller(any, constant<F>(kLargestRoot));  // denormals, which are slow on some processors, are kept away
  const F v = constant<F>(1.0f) / (x * 0.41627730557884884f + 1.0f);  // 0.5 * sqrt(ln 2)
  F p = constant<F>(0.05880204807f);
  p = p * v - 0.2182398887f;
  p = p * v + 0.1221823204f;
  p = p * v + 0.307676128f;
  p = p * v + 0.1308464754f;
  p = p * v + 0.3216977596f;
  p = p * v + 0.2770351686f;
  return p * v * exp2_of_negative(x * x) * 0.5f;
}

// K(t) / w_max for x = t * kBaseTwo (any finite or infinite x).
template <class F>
PK_HD F kde_kernel_series(F x, const KdeKernel& kernel) {
  const F s = smaller(x * x, constant<F>(kLargestSquare));
  F q = constant<F>(kernel.series[kSeriesDegree - 1]);
  for (int k = kSeriesDegree - 2; k >= 0; --k) q = q * s + kernel.series[k];
  return (q * s + 1.0f) * exp2_of_negative(s);
}

template <class F>
PK_HD F kde_kernel_wide(F x, const KdeKernel& kernel) {
  // Upper tails of both edges, so that nothing cancels where K is small.
  const F t = magnitude(x);
  const F inner = t - kernel.half;
  const F inner_tail = half_erfc(magnitude(inner));
  const F zero = F{};
  const F above_inner = inner >= zero ? inner_tail : 1.0f - inner_tail;
  return (above_inner - half_erfc(t + kernel.half)) * kernel.inverse_peak;
}

// The grid point k of R: lo + k * step, never above hi. The released value is exactly this float.
template <class F>
PK_HD F grid_point(F lo, F hi, F step, int64_t k) {
  return smaller(lo + step * static_cast<float>(k), hi);
}

// Weights become integers so that the draw is exact: weight * 2^bits, cut off. R of them stay below 2^62.
PK_HD int weight_bits(int64_t grid_points) {
  int bits = 62;
  while (grid_points > 1) {
    grid_points = (grid_points + 1) / 2;
    --bits;
  }
  return bits;
}

PK_HD uint64_t integer_weight(float weight, float two_to_bits) {
  return static_cast<uint64_t>(static_cast<int64_t>(weight * two_to_bits));
}

// Host only: the constants of K for one window_ratio, computed in double.
static inline KdeKernel make_kde_kernel(double window_ratio) {
  KdeKernel kernel{};
  const double h = window_ratio / 2;
  kernel.peak = std::erf(h / std::sqrt(2.0));
  kernel.half = static_cast<float>(h * kBaseTwo);
  kernel.inverse_peak = static_cast<float>(1.0 / kernel.peak);
  kernel.use_series = window_ratio <= kSeriesLimit;
  // K(t) = 2 phi(t) sum_k t^2k / (2k)! I_k,  I_k = integral over [0, h] of v^2k exp(-v^2 / 2) dv;
  // divided by h^(2k+1) so that small windows neither underflow nor divide zero by zero.
  double first = 1, factor = 1;
  for (int k = 0; k <= kSeriesDegree; ++k) {
    double integral = 0, term = 1;
    for (int m = 0; m < 30; ++m) {
      integral += term / (2 * k + 2 * m + 1);
      term *= -h * h / (2.0 * (m + 1));
    }
    if (k == 0)
      first = integral;
    else {
      factor *= h * h / ((2.0 * k) * (2.0 * k - 1)) / (kBaseTwo * kBaseTwo);
      kernel.series[k - 1] = static_cast<float>(factor * integral / first);
    }
  }
  return kernel;
}

}  // namespace privkernels
