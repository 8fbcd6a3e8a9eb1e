// kde_em's envelope: a bound on the weights of all grid points, from a few sums over the members, and the trial that
// turns it into an exact draw (rejection sampling: propose from the envelope, accept with weight / bound).
//
// With h = window_ratio / 2, K(t) / w_max <= g(t) = exp(-t^2 / (2 s^2)) for every t, where 1 / s^2 = 2 h phi(h) /
// w_max: (ln K)'' = -1 + the variance of a normal variable around t cut to [-h, h], which is largest at t = 0 and there
// makes it -1 / s^2. Lengths below are in units of s b, times kBaseTwo, so that g = 2^(-x^2).
//
// Sums of g over the members are taken at nodes c grid points apart, c a power of two: a member at x from the middle
// node of 33 adds 2^(-(x + l H)^2) = 2^(-x^2) (2^(-2 x H))^l 2^(-(l H)^2) to node l, one product for each node
// (all terms positive: nothing cancels). Between two nodes G'' >= -G / s^2, since g'' >= -g / s^2; so G lies below the
// sine through its values there, which exceeds the straight line by at most (1 / cos(H / 2s) - 1) of the larger one.
// With that added to the nodes, the weight exp(scale * G) lies below the exponential of a line, and so (it is convex)
// below the line between the two nodes' weights.
//
// The margins, and what is left of the privacy loss after them: docs/accounting.md, Statement 17.
//
// So the envelope is a sum of hats: node m has weight A_m, the point o grid points away from it 1 - |o| / c of it. A
// node is drawn with probability proportional to A_m, and o as the sum of two uniform numbers, exactly.
#pragma once

#include "kde.h"

namespace privkernels {

constexpr int kHalfNodes = 16;  // nodes on either side of the middle one
constexpr int kGroupNodes = 2 * kHalfNodes + 1;
constexpr int kMaxNodes = 8 * kGroupNodes;
constexpr int kNodeRoom = kMaxNodes + 3;    // two places before the first node, and one after the last
constexpr int kTrials = 9;                  // proposals before the draw falls back to the scores of all points
constexpr int kEnvelopeBits = 22;           // weights are at most 1.0004 * 2^22, so that sums stay below 2^31
constexpr float kEnvelopeOne = 4194304.0f;  // 2^kEnvelopeBits
constexpr float kNodeSpacing = 0.44f;       // largest H * kBaseTwo / s: half a bandwidth for a narrow window
constexpr double kSteepExponent = 26.0;     // range of the exponent beyond which nodes must be closer
constexpr float kFarthest = 13.6f;         // members further away are counted as if they were there: more than they add
constexpr float kLeastTurn = 12612480.0f;  // 1.5 * 2^23 + 256 (127 - 184 / 16), see member_share
constexpr float kLeastSum = 1.0f;  // 2^-64 of a member: times the smallest factor in group_sums, and bend, above 2^-126
constexpr float kScaling = 64.0f;  // sums are scaled by 2^64, so that neither 2^-121 nor 2^113 * M leave float
constexpr int64_t kMostEnvelopeMembers = 8192;
constexpr double kWidestEnvelopeWindow = 2.0;  // beyond it K is too flat on top for a normal curve
constexpr int64_t kFewestEnvelopePoints = 8;   // below it all scores cost less than the envelope
// The largest distance from zero, in bandwidths, of a grid whose points float can still tell apart well enough.
constexpr float kLargestOffset = 16384.0f;

// What the envelope needs beside KdeKernel; host only, in double.
struct KdeEnvelope {
  float inverse_width;  // 1 / s
  float slack;          // absolute, per member: rounding of the scores themselves
  float excess;         // relative: rounding of the sums at the nodes
  int largest_shift;    // log2 of the largest number of grid points between two nodes
  int offset_bits;      // of each word of a trial; the others choose the node, or accept
  float spacing;        // H * kBaseTwo / s that is aimed at
  int usable;           // whether M, R and the window allow it
};

static inline KdeEnvelope make_kde_envelope(double window_ratio, int64_t num_members, int64_t grid_points,
                                            double multiplier) {
  const double h = window_ratio / 2;
  const double density = 0.3989422804014327 * std::exp(-h * h / 2);
  const double peak = std::erf(h / std::sqrt(2.0));
  KdeEnvelope envelope{};
  const double steepness = multiplier * peak / kSteepExponent;
  envelope.spacing = static_cast<float>(kNodeSpacing / std::sqrt(steepness > 1 ? steepness : 1));
  envelope.inverse_width = static_cast<float>(std::sqrt(2 * h * density / peak) * (1 - 1e-6));
  envelope.slack = static_cast<float>((96 + static_cast<double>(num_members) / 8) * 0x1p-24);
  envelope.excess = static_cast<float>(1 + 0x1p-11 + static_cast<double>(num_members) * 0x1p-24);
  // Eight intervals at least, so that points beyond the ends are few.
  for (envelope.largest_shift = 0; (grid_points >> (envelope.largest_shift + 4)) > 0;) ++envelope.largest_shift;
  envelope.offset_bits = envelope.largest_shift > 2 ? envelope.largest_shift : 2;
  envelope.usable = window_ratio <= kWidestEnvelopeWindow && num_members <= kMostEnvelopeMembers &&
                    grid_points >= kFewestEnvelopePoints;
  return envelope;
}

// One element's (or one vector of elements') geometry.
template <class F, class I>
struct EnvelopeShape {
  F inverse;  // kBaseTwo / (s b)
  F spacing;  // H in the units above
  F bend;     // 1 / cos(H / 2s) - 1
  F slack;    // absolute, per member
  I shift;    // log2 c; -1 where the envelope cannot serve the element
  I nodes;    // ceil(R / c) + 1
};

template <class F, class I>
PK_HD EnvelopeShape<F, I> envelope_shape(F lo, F hi, F step, F inverse, const KdeEnvelope& envelope, I grid_points) {
  EnvelopeShape<F, I> shape;
  shape.inverse = inverse * envelope.inverse_width;
  const F per_point = step * shape.inverse;
  // The exponent of room is log2 of the largest power of two of grid points that fits between two nodes.
  const F most = constant<F>(static_cast<float>(1 << envelope.largest_shift));
  const F room = smaller(constant<F>(envelope.spacing) / larger(per_point, constant<F>(1e-30f)), most);
  const I shift = to_signed(to_bits(room) >> 23) - 127;
  const I usable_shift = shift < 0 ? I{} : shift;
  const I points = (I{} + 1) << usable_shift;
  const I nodes = ((grid_points + points - 1) >> usable_shift) + 1;
  shape.spacing = per_point * to_float(points);
  // (H / s)^2 = z = spacing^2 * 2 ln 2 is at most 0.27, where 1 / cos(sqrt(z) / 2) - 1 < z / 8 + z^2 / 70.
  const F square = shape.spacing * shape.spacing;
  shape.bend = usable_shift > 0 ? square * 0.1732873f + square * square * 0.0274557f : F{};  // no points between nodes
  // Grid points are rounded to float, by at most 4 u of the largest value on the way; the slope of 2^(-x^2) is at
  // most 0.72.
  const F offset = larger(larger(magnitude(lo), magnitude(hi)), hi - lo) * shape.inverse;
  shape.slack = offset * (0.8f * 2.3841858e-7f) + envelope.slack;
  const auto fits = (per_point <= kNodeSpacing) & (nodes <= kMaxNodes) & (offset <= kLargestOffset);
  shape.shift = fits ? usable_shift : I{} - 1;
  shape.nodes = fits ? nodes : I{};
  return shape;
}

// 2^x for x in [-125, 126] to 7.9e-05, and 2^x and 2^-x for |x| <= 125 to 3.4e-06: good enough for a bound.
template <class F>
PK_HD F rough_exp2(F x) {
  const F shift = constant<F>(12582912.0f);
  const F shifted = x + shift;
  const F f = x - (shifted - shift);
  const F p = ((f * 0.0551716685f + 0.242611125f) * f + 0.693260968f) * f + 0.999928057f;
  return from_bits(to_bits(p) + (to_bits(shifted) << 23), p);
}

template <class F>
PK_HD void rough_exp2_pair(F x, F& positive, F& negative) {
  const F shift = constant<F>(12582912.0f);
  const F shifted = x + shift;
  const F f = x - (shifted - shift);
  const F square = f * f;
  const F even = (square * 0.00956967473f + 0.240247667f) * square + 0.999999225f;
  const F odd = (square * 0.0559182465f + 0.693121731f) * f;
  const auto whole = to_bits(shifted) << 23;
  positive = from_bits(to_bits(even + odd) + whole, even);
  negative = from_bits(to_bits(even - odd) - whole, even);
}

// A member's share in a group of nodes: `weight` at the middle one, times `up` (`down`) for each node above (below).
template <class F>
PK_HD void member_share(F middle, F theta, F inverse, F spacing, F& weight, F& up, F& down) {
  const F x = larger(smaller((middle - theta) * inverse, constant<F>(kFarthest)), constant<F>(-kFarthest));
  const F square = x * x;
  weight = rough_exp2(kScaling - square);
  const F turn = x * (spacing + spacing);
  rough_exp2_pair(turn, down, up);
  // weight * least^16 is between 2^-121 and 2^-119 (a line in place of the power of two): a share that falls further is
  // kept above it, lest the time that some processors take for denormals tell where the members are.
  const F least = from_bits(to_bits(square * 16.0f + kLeastTurn) << 15, square);
  up = larger(up, least);
  down = larger(down, least);
}

// The middle node of a group; `group` counts from 0.
template <class F, class I>
PK_HD F middle_node(F lo, F step, const EnvelopeShape<F, I>& shape, int group) {
  const I shift = shape.shift < 0 ? I{} : shape.shift;
  return lo + step * to_float((I{} + (group * kGroupNodes + kHalfNodes)) << shift);
}

// The sums of g at a group's nodes, `stride` floats apart, from the members' shares added up (sums [33], lowest node
// first, which are overwritten).
template <class F, class I>
PK_HD void group_sums(F* sums, const EnvelopeShape<F, I>& shape, int group, float* nodes, int64_t stride) {
  const F turn = exp2_normal(-(shape.spacing * shape.spacing));  // 2^(-(l H)^2) = turn^(l^2)
  const F turn_squared = turn * turn;
  F factor = constant<F>(5.4210109e-20f);  // 2^-64 undoes kScaling
  F ratio = turn;
  for (int l = 0; l < kGroupNodes; ++l) sums[l] = larger(sums[l], constant<F>(kLeastSum));
  sums[kHalfNodes] = sums[kHalfNodes] * factor;
  for (int l = 1; l <= kHalfNodes; ++l) {
    factor = factor * ratio;
    ratio = ratio * turn_squared;
    sums[kHalfNodes + l] = sums[kHalfNodes + l] * factor;
    sums[kHalfNodes - l] = sums[kHalfNodes - l] * factor;
  }
  for (int l = 0; l < kGroupNodes; ++l) store_lanes(nodes + (group * kGroupNodes + l) * stride, sums[l]);
}

// Turns the sums at `count` nodes into bounds on the sum of K / w_max, and those into weights: integers of at least
// exp2(scale * (bound - best)) * 2^kEnvelopeBits. Leaves their running sums (their bits in the floats): the sum of the
// weights up to node m at m, 0 in the two places before the first, and the whole again after the last. Returns the
// whole; `best` becomes the largest bound. Products, sums of M terms and exponentials are within `excess`.
template <class F, class I>
PK_HD I node_weights(const EnvelopeShape<F, I>& shape, const KdeEnvelope& envelope, float num_members,
                     float exponent_scale, int count, float* nodes, int64_t stride, F& best) {
  const F slack = shape.slack * num_members;
  F before = F{}, here = F{}, after;
  load_lanes(nodes, after);
  best = F{};
  for (int node = 0; node < count; ++node) {
    before = here;
    here = after;
    if (node + 1 < count) load_lanes(nodes + (node + 1) * stride, after);
    const F around = larger(larger(before, here), shape.nodes > node + 1 ? after : here);
    const F bound = (here + around * shape.bend) * envelope.excess + slack;
    best = shape.nodes > node ? larger(best, bound) : best;
    store_lanes(nodes + node * stride, bound);
  }
  I total = I{};
  store_lanes(nodes - 2 * stride, total);
  store_lanes(nodes - stride, total);
  for (int node = 0; node < count; ++node) {
    F bound;
    load_lanes(nodes + node * stride, bound);
    const F exponent = larger((bound - best) * exponent_scale, constant<F>(-125.0f));
    const I weight = to_integer(rough_exp2(exponent) * (kEnvelopeOne * 1.0002f)) + 1;
    total += shape.nodes > node ? weight : I{};
    store_lanes(nodes + node * stride, total);
  }
  store_lanes(nodes + count * stride, total);
  return total;
}

// The node of which the weight holds a target below the sum of all. Reads every sum, whichever it is.
template <class I>
PK_HD I find_node(const float* nodes, int64_t stride, int count, I target) {
  I node = I{};
  for (int at = 0; at < count; ++at) {
    I sum;
    load_lanes(nodes + at * stride, sum);
    node += sum <= target ? I{} + 1 : I{};
  }
  return node;
}

// The same by bisection, for one element.
PK_HD int32_t bisect_node(const float* nodes, int64_t stride, int count, int32_t target) {
  int low = 0, high = count - 1;  // the sum at count - 1 is above the target
  while (low < high) {
    const int middle = (low + high) / 2;
    int32_t sum;
    load_lanes(nodes + middle * stride, sum);
    if (sum <= target) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// The weights of a node and of those beside it.
template <class I>
struct NodeWeights {
  I before, here, after;
};

PK_HD NodeWeights<int32_t> weights_around(const float* nodes, int64_t stride, int32_t node) {
  int32_t sums[4];
  for (int i = 0; i < 4; ++i) load_lanes(nodes + (node - 2 + i) * stride, sums[i]);
  return {sums[1] - sums[0], sums[2] - sums[1], sums[3] - sums[2]};
}

// What a trial proposes.
template <class F, class I>
struct Proposal {
  I point;  // outside [0, R) there is nothing to accept
  F bound;  // the envelope there, at least the weight times 2^kEnvelopeBits
};

// first, second: uniform below c.
template <class F, class I>
PK_HD Proposal<F, I> propose(I node, const NodeWeights<I>& weights, I shift, I first, I second) {
  const I points = (I{} + 1) << shift;
  const I offset = first + second - (points - 1);
  const I distance = offset < 0 ? -offset : offset;
  const F here = to_float(weights.here);
  const F other = to_float(offset < 0 ? weights.before : weights.after);
  // Products of one sign, so that the error is relative: where the weights differ most, here + (other - here) * t
  // would be wrong by up to `points` rounding units of itself.
  const F sum = here * to_float(points - distance) + other * to_float(distance);
  return {(node << shift) + offset, sum / to_float(points)};
}

// Whether a trial accepts a grid point whose score sum is `total`: with probability weight / bound, cut to a multiple
// of 2^-(64 - offset_bits): the bits of high and low but for the lowest.
template <class F, class B>
PK_HD auto accepts(F total, F best, F bound, float exponent_scale, int offset_bits, B low, B high)
    -> decltype(total < best) {
  const F exponent = larger((total - best) * exponent_scale, constant<F>(-125.0f));
  const F weight = exp2_normal(smaller(exponent, F{})) * kEnvelopeOne;
  const F share = smaller(weight / bound, constant<F>(0x0.ffffffp0f)) * 2147483648.0f;
  const auto whole = to_integer(share);
  const auto rest = to_integer((share - to_float(whole)) * static_cast<float>(1u << (33 - offset_bits)));
  const auto first = to_signed(high >> 1);
  const auto second = to_signed(((high & 1u) << (32 - offset_bits)) | (low >> offset_bits));
  return (first < whole) | ((first == whole) & (second < rest));
}

// A number below 2^shift, from the low bits of a word of a trial.
template <class I, class B>
PK_HD I low_uniform(B low, I shift, int offset_bits) {
  return to_signed(low & ((1u << offset_bits) - 1)) >> (offset_bits - shift);
}

}  // namespace privkernels
