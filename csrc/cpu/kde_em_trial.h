// One trial of kde_em in every lane: the envelope, the proposal, and the score that decides (core/kde_envelope.h).
//
// Everything here is compiled once for each instruction set; no standard library, see core/platform.h.
#pragma once

#include "core/kde_envelope.h"
#include "kde_em_tile.h"

namespace privkernels {
namespace PK_ISA {
namespace {

typedef EnvelopeShape<FloatLanes, IntLanes> Shape;

// The sum of K / w_max over the members at r.
template <bool kSeries>
PK_HD FloatLanes score_sum(const Columns& columns, int64_t num_members, const KdeKernel& kernel, FloatLanes r) {
  FloatLanes total = FloatLanes{};
  for (int64_t begin = 0; begin < num_members; begin += kMemberBlock) {
    const int64_t end = begin + kMemberBlock < num_members ? begin + kMemberBlock : num_members;
    FloatLanes block = FloatLanes{};
    for (int64_t i = begin; i < end; ++i) {
      const FloatLanes x = (r - load(columns.members + i * columns.stride)) * columns.inverse;
      block += kSeries ? kde_kernel_series(x, kernel) : kde_kernel_wide(x, kernel);
    }
    total += block;
  }
  return total;
}

// Adds to `sums` the shares of every member in the kHalfNodes nodes above (or, with their `turns`, below) the middle.
void add_chain(const float* shares, const float* turns, float* state, int64_t num_members, FloatLanes* sums, int sign) {
  constexpr int kAtOnce = kLanes == 16 ? 16 : 8;  // sums that are kept in registers
  for (int first = 0; first < kHalfNodes; first += kAtOnce) {
    FloatLanes sum[kAtOnce] = {};
    const float* from = first == 0 ? shares : state;
    for (int64_t i = 0; i < num_members; ++i) {
      FloatLanes share = load(from + i * kLanes);
      const FloatLanes turn = load(turns + i * kLanes);
#pragma GCC unroll 16
      for (int l = 0; l < kAtOnce; ++l) {
        share = share * turn;
        sum[l] += share;
      }
      if (kAtOnce < kHalfNodes) store_lanes(state + i * kLanes, share);
    }
    for (int l = 0; l < kAtOnce; ++l) sums[kHalfNodes + sign * (first + l + 1)] = sum[l];
  }
}

struct Envelope {
  Shape shape;
  FloatLanes best;
  IntLanes total;
  int nodes;  // the most that any lane has; with none there is nothing to propose
};

// shares: float [4, M, lanes].
Envelope make_envelope(const KdeEmArgs& args, const KdeEmPlan& plan, const Columns& columns, float* shares,
                       float* nodes, int64_t stride) {
  const int64_t num_members = args.num_members;
  Envelope envelope{};
  envelope.shape = envelope_shape(columns.lo, columns.hi, columns.step, columns.inverse, plan.envelope,
                                  IntLanes{} + static_cast<int32_t>(args.grid_points));
  const Shape& shape = envelope.shape;
  for (int lane = 0; lane < kLanes; ++lane) {
    envelope.nodes = shape.nodes[lane] > envelope.nodes ? shape.nodes[lane] : envelope.nodes;
  }
  if (envelope.nodes == 0) return envelope;
  float* up = shares + num_members * kLanes;
  float* down = up + num_members * kLanes;
  float* state = down + num_members * kLanes;
  for (int group = 0; group * kGroupNodes < envelope.nodes; ++group) {
    const FloatLanes middle = middle_node(columns.lo, columns.step, shape, group);
    FloatLanes sums[2 * kHalfNodes + 1];
    FloatLanes here = FloatLanes{};
    for (int64_t i = 0; i < num_members; ++i) {
      FloatLanes share, above, below;
      member_share(middle, load(columns.members + i * columns.stride), shape.inverse, shape.spacing, share, above,
                   below);
      here += share;
      store_lanes(shares + i * kLanes, share);
      store_lanes(up + i * kLanes, above);
      store_lanes(down + i * kLanes, below);
    }
    sums[kHalfNodes] = here;
    add_chain(shares, up, state, num_members, sums, 1);
    add_chain(shares, down, state, num_members, sums, -1);
    group_sums(sums, shape, group, nodes, stride);
  }
  envelope.total = node_weights(shape, plan.envelope, static_cast<float>(num_members), plan.exponent_scale,
                                envelope.nodes, nodes, stride, envelope.best);
  return envelope;
}

// Two words of 64 bits for each lane, in halves: the first chooses the node, the second whether its point is drawn.
struct TrialBits {
  BitLanes node_low, node_high, point_low, point_high;
};

PK_HD IntLanes scaled_target(BitLanes low, BitLanes high, IntLanes total) {
  IntLanes target = IntLanes{};
  uint32_t lows[kLanes], highs[kLanes], totals[kLanes], scaled[kLanes];
  __builtin_memcpy(lows, &low, sizeof low);
  __builtin_memcpy(highs, &high, sizeof high);
  __builtin_memcpy(totals, &total, sizeof total);
  for (int lane = 0; lane < kLanes; ++lane) scaled[lane] = scale_to_word(lows[lane], highs[lane], totals[lane]);
  __builtin_memcpy(&target, scaled, sizeof target);
  return target;
}

// The node that each lane's target hits, and the weights around it.
struct Hit {
  IntLanes node;
  NodeWeights<IntLanes> weights;
};

// The same lane by lane, in memory: a vector is put together faster from there than element by element.
struct HitLanes {
  int32_t node[kLanes], before[kLanes], here[kLanes], after[kLanes];

  void put(int lane, int32_t at, const float* nodes, int64_t stride) {
    const NodeWeights<int32_t> weights = weights_around(nodes, stride, at);
    node[lane] = at, before[lane] = weights.before, here[lane] = weights.here, after[lane] = weights.after;
  }
  Hit together() const {
    Hit hit;
    __builtin_memcpy(&hit.node, node, sizeof node);
    __builtin_memcpy(&hit.weights.before, before, sizeof before);
    __builtin_memcpy(&hit.weights.here, here, sizeof here);
    __builtin_memcpy(&hit.weights.after, after, sizeof after);
    return hit;
  }
};

// Of neighbouring columns; reads every sum. A lane without nodes hits the last one, of which it has nothing.
PK_HD Hit scan_nodes(const float* nodes, int64_t stride, int count, IntLanes target) {
  const IntLanes found = find_node(nodes, stride, count, target);
  int32_t node[kLanes];
  __builtin_memcpy(node, &found, sizeof node);
  HitLanes hit;
  for (int lane = 0; lane < kLanes; ++lane)
    hit.put(lane, node[lane] < count ? node[lane] : count - 1, nodes + lane, stride);
  return hit.together();
}

// What each lane's first word asks of the nodes.
PK_HD IntLanes node_target(const KdeEmPlan& plan, const Envelope& envelope, const TrialBits& bits) {
  return scaled_target(bits.node_low & ~BitLanes{} << plan.envelope.offset_bits, bits.node_high, envelope.total);
}

// One trial in every lane: the grid point proposed; `accepted` has all bits set where it is drawn.
template <bool kSeries>
IntLanes try_once(const KdeEmArgs& args, const KdeEmPlan& plan, const Columns& columns, const Envelope& envelope,
                  const Hit& hit, const TrialBits& bits, IntLanes& accepted) {
  const int offset_bits = plan.envelope.offset_bits;
  const IntLanes shift = envelope.shape.shift < 0 ? IntLanes{} : envelope.shape.shift;
  const Proposal<FloatLanes, IntLanes> proposal =
      propose<FloatLanes>(hit.node, hit.weights, shift, low_uniform(bits.node_low, shift, offset_bits),
                          low_uniform(bits.point_low, shift, offset_bits));
  const IntLanes k = proposal.point;
  const FloatLanes r = smaller(columns.lo + columns.step * to_float(k), columns.hi);
  const FloatLanes total = score_sum<kSeries>(columns, args.num_members, plan.kernel, r);
  accepted =
      (k >= 0) & (k < static_cast<int32_t>(args.grid_points)) & (envelope.shape.shift >= 0) &
      accepts(total, envelope.best, proposal.bound, plan.exponent_scale, offset_bits, bits.point_low, bits.point_high);
  return k;
}

// The words of four trials after the first: a block for each element.
PK_HD void retry_words(const KdeEmArgs& args, const uint64_t* elements, int block, BitLanes* words) {
  uint32_t low[kLanes], high[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    low[lane] = static_cast<uint32_t>(elements[lane]);
    high[lane] = static_cast<uint32_t>(elements[lane] >> 32);
  }
  BitLanes address[4];
  __builtin_memcpy(&address[0], low, sizeof low);
  __builtin_memcpy(&address[1], high, sizeof high);
  address[2] = BitLanes{} + args.attempt;
  address[3] = BitLanes{} + (kPurposeKdeEmRetry | static_cast<uint32_t>(block) << 8);
  chacha20_block(args.key, address, words);
}

}  // namespace
}  // namespace PK_ISA
}  // namespace privkernels
