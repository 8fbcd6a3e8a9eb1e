// kde_em's scores of all grid points from sums at nodes, in work that does not depend on the members.
//
// With nodes c = 2^shift grid points apart, eta = H / b bandwidths in (kClosestNodes, kWidestNodes], and lengths in
// nodes: K is the window of half width w = h / eta, smoothed by a normal curve of variance 1 / eta^2. A variance of 1
// goes into the taps, the rest into the curve g(x) = 2^(-kappa x^2), 1 / (2 kappa ln 2) = 1 / eta^2 - 1,
// which is what is summed over the members at the nodes. Then, at any y,
//
//   K(y) / w_max = sum_k tap(y - k) G(k),   tap(t) = C (Phi(t + w) - Phi(t - w)),  C = sqrt(kappa ln 2 / pi) / w_max,
//
// the trapezoidal rule for an integral over normal curves, whose error is below 2^-24 at this spacing. It is taken at
// the nodes and half-way between them; twice as many points each come from those by interpolation (six points, an
// error of 5e-8), until all grid points are there. Every tap and every sum of members is positive: nothing cancels.
//
// The sums: a member at x from the middle node of 45 adds 2^(-kappa (x - l)^2) = 2^(-kappa x^2) (2^(2 kappa x))^l
// 2^(-kappa l^2) to node l. The powers for l = 1 and l = 5 are computed, so that node l is at most two and four
// products away. kappa is split into eight bits and a rest, x into a multiple of 1/8 and a rest, so that the large
// terms of the exponents are exact. Errors: docs/accounting.md, Statement 18.
#pragma once

#include "kde.h"

namespace privkernels {

constexpr int kInnerNodes = 2;
constexpr int kOuterBlocks = 4;
constexpr int kBlockNodes = 2 * kInnerNodes + 1;
constexpr int kSpan = kInnerNodes + kOuterBlocks * kBlockNodes;  // nodes on either side of the middle one
constexpr int kSpanNodes = 2 * kSpan + 1;
constexpr int kAtOnce = 8;                 // members that are added up before their sum is added to a node's
constexpr int kMembersBetween = 32;        // and how many before that is added to the whole
constexpr double kWidestNodes = 0.26;      // bandwidths
constexpr double kClosestNodes = 0.125;    // 255 points over eight bandwidths, four to a node, are served
constexpr int kFewestIntervals = 64;       // nodes are closer where the range has fewer: each halving rounds once more
constexpr double kTapReach = 5.25;         // nodes beyond the window's edge where taps end: Phi(-5.25) = 8e-8
constexpr int kMostReach = 13;             // of them, for a window of two bandwidths
constexpr int kTaps = 2 * kMostReach + 2;  // at multiples of half a node
constexpr int kTapDegree = 18;
constexpr int kExtra = 4;              // points beyond the ends that each interpolation needs of the one before
constexpr double kNodeCut = 6.0;       // bandwidths; members further from a group's nodes are counted as there
constexpr float kNodeScale = 0x1p86f;  // keeps all sums, 2^-210 ... 2^38 of a member, within float
constexpr float kNodeUnscale = 0x1p-86f;
constexpr float kLeastNode = 0x1p30f;  // 2^-56 of a member, so that no product is denormal
constexpr int64_t kMostNodeMembers = 8192;
constexpr double kWidestNodeWindow = 2.0;
// Ends of the range, in bandwidths from zero: floats there are far closer than kNodeCut, so that a member is not moved
// to another place when it is cut to it.
constexpr double kFarthestRange = 16384.0;

constexpr double kMiddleNodes = (kWidestNodes + kClosestNodes) / 2;
constexpr double kHalfNodeRange = (kWidestNodes - kClosestNodes) / 2;

// What is the same for every element of a call; host only, in double.
struct KdeNodes {
  int usable;                         // whether M, R and the window allow it
  int largest_shift;                  // log2 of the largest number of grid points between two nodes
  int reach;                          // taps lie at up to reach + 1/2 nodes
  float taps[kTaps][kTapDegree + 1];  // Chebyshev coefficients in eta, from kClosestNodes to kWidestNodes
};

static inline double node_tap(double at, double eta, double half, double peak) {
  const double w = half / eta;
  const double kappa = 0.5 / (0.69314718055994530942 * (1 / (eta * eta) - 1));
  const double scale = std::sqrt(kappa * 0.69314718055994530942 / 3.14159265358979323846) / peak;
  const double root = 0.70710678118654752440;
  return scale * 0.5 * (std::erfc((at - w) * root) - std::erfc((at + w) * root));
}

static inline KdeNodes make_kde_nodes(double window_ratio, int64_t num_members, int64_t grid_points) {
  KdeNodes nodes{};
  const double half = window_ratio / 2;
  nodes.usable = window_ratio <= kWidestNodeWindow && num_members <= kMostNodeMembers && grid_points > kFewestIntervals;
  if (!nodes.usable) return nodes;
  while (((grid_points - 1) >> (nodes.largest_shift + 1)) >= kFewestIntervals - 1) ++nodes.largest_shift;
  nodes.reach = static_cast<int>(half / kClosestNodes + kTapReach);
  const double peak = std::erf(half / std::sqrt(2.0));
  constexpr int kPoints = kTapDegree + 1;
  for (int tap = 0; tap < 2 * nodes.reach + 2; ++tap) {
    double value[kPoints];
    for (int i = 0; i < kPoints; ++i) {
      const double z = std::cos(3.14159265358979323846 * (i + 0.5) / kPoints);
      value[i] = node_tap(0.5 * tap, kMiddleNodes + kHalfNodeRange * z, half, peak);
    }
    for (int k = 0; k < kPoints; ++k) {
      double sum = 0;
      for (int i = 0; i < kPoints; ++i) sum += value[i] * std::cos(3.14159265358979323846 * k * (i + 0.5) / kPoints);
      nodes.taps[tap][k] = static_cast<float>(sum * (k == 0 ? 1.0 : 2.0) / kPoints);
    }
  }
  return nodes;
}

// One element's (or one vector of elements') geometry.
template <class F>
struct NodeShape {
  F inverse;       // nodes per unit of length
  F inverse_rest;  // of the whole, relative to it
  F kappa, kappa_rest;
  F farthest;  // in units of length, from the middle of a group
  F place;     // of eta between kClosestNodes (-1) and kWidestNodes (1)
};

// shift is -1 where the nodes cannot serve the element. Public numbers alone.
PK_HD NodeShape<float> node_shape(float lo, float hi, float step, float inverse, const KdeNodes& nodes, int& shift) {
  double eta = static_cast<double>(step) * static_cast<double>(inverse) / kBaseTwo;
  double length = static_cast<double>(step);
  shift = 0;
  while (shift < nodes.largest_shift && 2 * eta <= kWidestNodes) eta *= 2, length *= 2, ++shift;
  const double offset = static_cast<double>(larger(magnitude(lo), magnitude(hi))) * static_cast<double>(inverse);
  const bool near_zero = offset <= kFarthestRange * kBaseTwo;
  const bool invertible = length >= static_cast<double>(kSmallestBandwidth);  // as a float
  if (!nodes.usable || !near_zero || !invertible || !(eta > kClosestNodes && eta <= kWidestNodes)) {
    shift = -1;
    return {};
  }
  const double kappa = 0.72134752044448170368 / (1 / (eta * eta) - 1);  // 1 / (2 ln 2)
  NodeShape<float> shape;
  shape.inverse = static_cast<float>(1 / length);
  shape.inverse_rest = static_cast<float>(1 / (length * static_cast<double>(shape.inverse)) - 1);
  const float single = static_cast<float>(kappa);
  shape.kappa = from_bits((to_bits(single) + 0x8000u) & 0xffff0000u, single);
  shape.kappa_rest = static_cast<float>(kappa - static_cast<double>(shape.kappa));
  shape.farthest = static_cast<float>((kSpan + kNodeCut / eta) * length);
  shape.place = static_cast<float>((eta - kMiddleNodes) / kHalfNodeRange);
  return shape;
}

// Of the element's nodes: those over the range, and `beyond` on either side.
PK_HD int node_intervals(int64_t grid_points, int shift) {
  return static_cast<int>((grid_points - 1 + (int64_t{1} << shift) - 1) >> shift);
}
PK_HD int nodes_beyond(const KdeNodes& nodes) { return nodes.reach + kExtra / 2; }
PK_HD int node_count(const KdeNodes& nodes, int intervals) { return intervals + 1 + 2 * nodes_beyond(nodes); }
PK_HD int node_groups(int count) { return (count + kSpanNodes - 1) / kSpanNodes; }

// The middle node of a group as the sum of two floats.
PK_HD void node_middle(float lo, float step, int shift, const KdeNodes& nodes, int group, float& middle, float& rest) {
  const int at = group * kSpanNodes + kSpan - nodes_beyond(nodes);
  const double exact = static_cast<double>(lo) + static_cast<double>(step) * (static_cast<double>(at) * (1 << shift));
  middle = static_cast<float>(exact);
  rest = static_cast<float>(exact - static_cast<double>(middle));
}

// 2^(n + f), and with it 2^-(n + f), for the sum of `high`, which is split into n and f exactly, and `low`.
template <class F>
struct PowerParts {
  F line, even, odd, shifted;  // 2^f = 1 + (line + (even + odd)), 2^-f = 1 + ((even - odd) - line)
};

template <class F>
PK_HD PowerParts<F> power_parts(F high, F low) {
  const F shift = constant<F>(12582912.0f);
  PowerParts<F> parts;
  parts.shifted = (high + low) + shift;
  const F f = (high - (parts.shifted - shift)) + low;
  const F square = f * f + 0x1p-52f;  // changes nothing, but for products of tiny numbers, which would be denormal
  parts.line = f * 0.69314724f;
  parts.even = ((square * 0.00015474987f + 0.009618012f) * square + 0.2402265f) * square;
  parts.odd = (square * 0.0013422533f + 0.055502627f) * (square * f);
  return parts;
}

template <class F>
PK_HD F power_of(const PowerParts<F>& parts) {
  const F power = (parts.line + (parts.even + parts.odd)) + 1.0f;
  return from_bits(to_bits(power) + (to_bits(parts.shifted) << 23), power);
}

template <class F>
PK_HD F reciprocal_power_of(const PowerParts<F>& parts) {
  const F power = ((parts.even - parts.odd) - parts.line) + 1.0f;
  return from_bits(to_bits(power) - (to_bits(parts.shifted) << 23), power);
}

// kAtOnce members' shares of a group of nodes: `weight` at the middle node, times `up` for each node above it.
template <class F>
struct NodeMembers {
  F weight[kAtOnce], up[kAtOnce], down[kAtOnce], block_up[kAtOnce], block_down[kAtOnce];
};

template <class F>
PK_HD void set_member(NodeMembers<F>& members, int at, F theta, F middle, F middle_rest, const NodeShape<F>& shape) {
  const F near = larger(smaller(theta, middle + shape.farthest), middle - shape.farthest);
  const F d = near - middle;
  const F back = near - d;
  const F lost = (near - (d + back)) + (back - middle);  // of the difference, exactly
  const F whole = d * shape.inverse;
  const F eighths = constant<F>(1572864.0f);  // 1.5 * 2^20
  const F high = (whole + eighths) - eighths;
  const F low = (whole - high) + ((lost - middle_rest) * shape.inverse + whole * shape.inverse_rest);
  const F x = high + low;
  const F slope = shape.kappa * high;
  const F curve = (x + high) * low * shape.kappa + x * x * shape.kappa_rest;
  members.weight[at] = power_of(power_parts(-(slope * high), -curve)) * kNodeScale;
  const F turn = slope + slope;
  const F turn_low = (low * shape.kappa + x * shape.kappa_rest) * 2.0f;
  const PowerParts<F> one = power_parts(turn, turn_low);
  members.up[at] = power_of(one);
  members.down[at] = reciprocal_power_of(one);
  const PowerParts<F> block = power_parts(turn * 5.0f, turn_low * 5.0f);
  members.block_up[at] = power_of(block);
  members.block_down[at] = reciprocal_power_of(block);
}

// In place of a member: adds nothing.
template <class F>
PK_HD void set_none(NodeMembers<F>& members, int at) {
  members.weight[at] = F{};
  members.up[at] = members.down[at] = members.block_up[at] = members.block_down[at] = constant<F>(1.0f);
}

// kCount is kAtOnce, or half of it: the sum is the same where the others are zero.
template <int kCount, class F>
PK_HD F sum_at_once(const F* share) {
  const F half = (share[0] + share[1]) + (share[2] + share[3]);
  if constexpr (kCount == kAtOnce) {
    return half + ((share[4] + share[5]) + (share[6] + share[7]));
  } else {
    return half;
  }
}

// Adds shares to the five nodes around `sums`, of which anchor is the middle one's.
template <int kCount, class F>
PK_HD void add_block(F* sums, const F* anchor, const F* up, const F* down) {
  static_assert(kInnerNodes == 2);
  sums[0] += sum_at_once<kCount>(anchor);
  for (int sign = -1; sign <= 1; sign += 2) {
    const F* turn = sign > 0 ? up : down;
    F share[kCount];
    for (int i = 0; i < kCount; ++i) share[i] = anchor[i] * turn[i];
    sums[sign] += sum_at_once<kCount>(share);
    for (int i = 0; i < kCount; ++i) share[i] = share[i] * turn[i];
    sums[2 * sign] += sum_at_once<kCount>(share);
  }
}

// Adds them to the group's nodes, up to those of block `last` (kOuterBlocks for all).
template <int kCount, class F>
PK_HD void add_members(F* sums, const NodeMembers<F>& members, int last) {
  for (int sign = -1; sign <= 1; sign += 2) {
    const F* turn = sign > 0 ? members.block_up : members.block_down;
    const int most = sign > 0 ? last : kOuterBlocks;
    F anchor[kCount];
    for (int i = 0; i < kCount; ++i) anchor[i] = members.weight[i];
    if (sign > 0 && last >= 0) add_block<kCount>(sums + kSpan, anchor, members.up, members.down);
    for (int block = 1; block <= most; ++block) {
      for (int i = 0; i < kCount; ++i) anchor[i] = anchor[i] * turn[i];
      F* const at = sums + kSpan + sign * kBlockNodes * block;
      if (sign > 0 || -block <= last) add_block<kCount>(at, anchor, members.up, members.down);
    }
  }
}

// The last block of a group that has a node among `count`.
PK_HD int last_block(int count, int group) {
  const int left = count - group * kSpanNodes;
  const int blocks = left < kSpanNodes ? (left + kBlockNodes - 1) / kBlockNodes : 2 * kOuterBlocks + 1;
  return blocks - 1 - kOuterBlocks;
}

// 2^(-kappa l^2), and the scale taken off.
template <class F>
PK_HD F node_factor(const NodeShape<F>& shape, int l) {
  const float square = static_cast<float>(l * l);
  return power_of(power_parts(-(shape.kappa * square), -(shape.kappa_rest * square))) * kNodeUnscale;
}

template <class F>
PK_HD F chebyshev(const float* coefficients, F z) {
  const F twice = z + z;
  F one = F{}, two = F{};
  for (int k = kTapDegree; k > 0; --k) {
    const F next = twice * one - two + coefficients[k];
    two = one;
    one = next;
  }
  return z * one - two + coefficients[0];
}

template <class F>
PK_HD F read_lanes(const float* from) {
  F value;
  load_lanes(from, value);
  return value;
}

// The sum of K / w_max at a node, and half-way to the next one; nodes are `stride` floats apart. taps: at 0, 1/2, 1,
// ... nodes.
template <class F>
PK_HD F at_node(const float* node, int64_t stride, const F* taps, int reach) {
  F sum = F{};
  for (int k = reach; k > 0; --k) {
    sum += (read_lanes<F>(node - k * stride) + read_lanes<F>(node + k * stride)) * taps[2 * k];
  }
  return sum + read_lanes<F>(node) * taps[0];
}

template <class F>
PK_HD F after_node(const float* node, int64_t stride, const F* taps, int reach) {
  F sum = F{};
  for (int k = reach; k >= 0; --k) {
    sum += (read_lanes<F>(node - k * stride) + read_lanes<F>(node + (k + 1) * stride)) * taps[2 * k + 1];
  }
  return sum;
}

// Half-way between a point and the next. The first halving is of points up to 0.13 bandwidths apart, and has the
// coefficients of least error there; the others are Lagrange's.
template <class F>
PK_HD F half_way(const float* point, int64_t stride, bool first) {
  const F near = read_lanes<F>(point) + read_lanes<F>(point + stride);
  const F next = read_lanes<F>(point - stride) + read_lanes<F>(point + 2 * stride);
  const F far = read_lanes<F>(point - 2 * stride) + read_lanes<F>(point + 3 * stride);
  const F rest = first ? near * 0.08651626f - next * 0.09852781f + far * 0.01201156f
                       : near * 0.0859375f - next * 0.09765625f + far * 0.01171875f;
  return near * 0.5f + rest;
}

// The sums of g at `count` nodes. member(i): the members; middle(group, high, low): the middle node of a group as the
// sum of two numbers. nodes: [node_groups(count) * kSpanNodes], `stride` floats apart.
template <class F, class Member, class Middle>
PK_HD void sum_nodes(int64_t num_members, const Member& member, const Middle& middle, const NodeShape<F>& shape,
                     int count, float* nodes, int64_t stride) {
  F factor[kSpan + 1];
  for (int l = 0; l <= kSpan; ++l) factor[l] = node_factor(shape, l);
  for (int group = 0; group < node_groups(count); ++group) {
    F high, low;
    middle(group, high, low);
    F total[kSpanNodes] = {};
    for (int64_t begin = 0; begin < num_members; begin += kMembersBetween) {
      F sums[kSpanNodes] = {};
      const int64_t end = begin + kMembersBetween < num_members ? begin + kMembersBetween : num_members;
      for (int64_t first = begin; first < end; first += kAtOnce) {
        NodeMembers<F> members;
        for (int i = 0; i < kAtOnce; ++i) {
          if (first + i < end) {
            set_member(members, i, member(first + i), high, low, shape);
          } else {
            set_none(members, i);
          }
        }
        if (end - first > kAtOnce / 2) {
          add_members<kAtOnce>(sums, members, last_block(count, group));
        } else {
          add_members<kAtOnce / 2>(sums, members, last_block(count, group));
        }
      }
      for (int l = 0; l < kSpanNodes; ++l) total[l] += sums[l];
    }
    for (int l = 0; l < kSpanNodes; ++l) {
      const F sum = larger(total[l], constant<F>(kLeastNode)) * factor[l < kSpan ? kSpan - l : l - kSpan];
      store_lanes(nodes + (group * kSpanNodes + l) * stride, sum);
    }
  }
}

// Floats (of one element) that the nodes, and each of the two levels of interpolation, take.
PK_HD int64_t node_room(int64_t grid_points) { return grid_points + 2 * kSpanNodes; }
PK_HD int64_t level_room(int64_t grid_points) { return grid_points + grid_points / 32 + 2 * kExtra + 1; }

// From those sums the ones of K / w_max at all grid points, [R], into scores; returns the largest of them and 0. nodes,
// scores and levels ([2, level_room(R)]) are `stride` floats apart.
template <class F>
PK_HD F spread_nodes(const KdeNodes& plan, const NodeShape<F>& shape, int shift, int64_t grid_points,
                     const float* nodes, float* scores, float* levels, int64_t stride) {
  const int reach = plan.reach;
  F taps[kTaps];
  for (int tap = 0; tap < 2 * reach + 2; ++tap) taps[tap] = chebyshev(plan.taps[tap], shape.place);
  const float* start = nodes + nodes_beyond(plan) * stride;
  F best = F{};
  if (shift == 0) {
    for (int64_t k = 0; k < grid_points; ++k) {
      const F sum = at_node(start + k * stride, stride, taps, reach);
      store_lanes(scores + k * stride, sum);
      best = larger(best, sum);
    }
    return best;
  }
  // Points -kExtra ... last + kExtra of a level.
  int64_t last = node_intervals(grid_points, shift);
  float* level = levels + kExtra * stride;
  float* other = level + level_room(grid_points) * stride;
  for (int64_t i = -kExtra / 2; i <= last + kExtra / 2; ++i) {
    store_lanes(level + 2 * i * stride, at_node(start + i * stride, stride, taps, reach));
    if (i == last + kExtra / 2) break;
    store_lanes(level + (2 * i + 1) * stride, after_node(start + i * stride, stride, taps, reach));
  }
  last *= 2;
  for (int halving = 2; halving < shift; ++halving) {
    for (int64_t i = -kExtra / 2; i <= last + kExtra / 2; ++i) {
      store_lanes(other + 2 * i * stride, read_lanes<F>(level + i * stride));
      if (i == last + kExtra / 2) break;
      store_lanes(other + (2 * i + 1) * stride, half_way<F>(level + i * stride, stride, halving == 2));
    }
    last *= 2;
    float* finer = other;
    other = level;
    level = finer;
  }
  const bool halve = shift > 1;
  for (int64_t k = 0; k < grid_points; ++k) {
    const float* at = level + (halve ? k / 2 : k) * stride;
    const F sum = halve && k % 2 == 1 ? half_way<F>(at, stride, shift == 2) : read_lanes<F>(at);
    store_lanes(scores + k * stride, sum);
    best = larger(best, sum);
  }
  return best;
}

}  // namespace privkernels
