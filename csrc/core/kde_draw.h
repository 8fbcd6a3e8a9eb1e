// One element's draw by the envelope (core/kde_envelope.h), and its scores by the nodes (core/kde_nodes.h), for a
// thread of a GPU and for the tests of the CPU's vectors.
#pragma once

#include "chacha20.h"
#include "half.h"
#include "kde_envelope.h"
#include "kde_nodes.h"
#include "privkernels/kde_em.h"

namespace privkernels {

// On a GPU rows are aligned, and a copy byte by byte would be slow.
template <class Bits>
PK_HD Bits read_bits(const char* from) {
#if defined(__CUDA_ARCH__)
  return *reinterpret_cast<const Bits*>(from);
#else
  Bits bits;
  __builtin_memcpy(&bits, from, sizeof bits);
  return bits;
#endif
}

// Which element of the call, and what is drawn from.
struct KdeElement {
  const KdeEmArgs& args;
  int64_t element;  // of the call
  float lo, hi, step, inverse;

  PK_HD KdeElement at(const KdeEmArgs& args, int64_t element) {
    const float lo = args.lo[element * args.lo_stride];
    const float hi = args.hi[element * args.hi_stride];
    const float bandwidth = args.bandwidth[element * args.bandwidth_stride];
    return {args,
            element,
            lo,
            hi,
            (hi - lo) / static_cast<float>(args.grid_points - 1),
            static_cast<float>(kBaseTwo) / bandwidth};
  }

  PK_HD bool usable(const KdeElement& in) {
    const float bandwidth = in.args.bandwidth[in.element * in.args.bandwidth_stride];
    const float range = in.hi - in.lo;
    return range >= 0.0f && range <= kLargestFloat && magnitude(in.lo) <= kLargestFloat &&
           bandwidth >= kSmallestBandwidth && bandwidth <= kLargestBandwidth;
  }

  PK_HD float member(const KdeElement& in, int64_t i) {
    const int64_t at = in.element * in.args.member_strides[i];
    const char* row = static_cast<const char*>(in.args.members[i]);
    if (in.args.format == FloatFormat::kFloat32) return SingleBits::decode(read_bits<uint32_t>(row + at * 4));
    const uint16_t bits = read_bits<uint16_t>(row + at * 2);
    return in.args.format == FloatFormat::kFloat16 ? HalfBits::decode(bits) : BrainBits::decode(bits);
  }
};

// The sum of K / w_max over the members at r.
PK_HD float kde_score_sum(const KdeElement& in, const KdeKernel& kernel, float r) {
  const int64_t num_members = in.args.num_members;
  float total = 0.0f;
  for (int64_t begin = 0; begin < num_members; begin += kMemberBlock) {
    const int64_t end = begin + kMemberBlock < num_members ? begin + kMemberBlock : num_members;
    float block = 0.0f;
    for (int64_t i = begin; i < end; ++i) {
      const float x = (r - KdeElement::member(in, i)) * in.inverse;
      block += kernel.use_series ? kde_kernel_series(x, kernel) : kde_kernel_wide(x, kernel);
    }
    total += block;
  }
  return total;
}

// The weights of the nodes and their sum; `best` becomes the largest bound.
PK_HD int32_t kde_envelope_of(const KdeElement& in, const EnvelopeShape<float, int32_t>& shape,
                              const KdeEnvelope& envelope, float exponent_scale, float* nodes, float& best) {
  const int64_t num_members = in.args.num_members;
  for (int group = 0; group * kGroupNodes < shape.nodes; ++group) {
    const float middle = middle_node(in.lo, in.step, shape, group);
    float sums[kGroupNodes];
    for (int l = 0; l < kGroupNodes; ++l) sums[l] = 0.0f;
    for (int64_t i = 0; i < num_members; ++i) {
      float share, up, down;
      member_share(middle, KdeElement::member(in, i), shape.inverse, shape.spacing, share, up, down);
      float above = share, below = share;
      sums[kHalfNodes] += share;
      for (int l = 1; l <= kHalfNodes; ++l) {
        above = above * up;
        below = below * down;
        sums[kHalfNodes + l] += above;
        sums[kHalfNodes - l] += below;
      }
    }
    group_sums(sums, shape, group, nodes, 1);
  }
  return node_weights(shape, envelope, static_cast<float>(num_members), exponent_scale, shape.nodes, nodes, 1, best);
}

// The 64 bits that `word` (0: the node, 1: its point) of a trial uses.
PK_HD uint64_t kde_trial_bits(const KdeEmArgs& args, uint64_t element, int trial, int word) {
  if (trial == 0) {
    const uint32_t purpose = kPurposeKdeEmTrial | static_cast<uint32_t>(word) << 8;
    return spread_bits(args.key, element, args.attempt, purpose);
  }
  uint32_t words[16];
  const uint32_t purpose = kPurposeKdeEmRetry | static_cast<uint32_t>((trial - 1) / 4) << 8;
  addressed_block(args.key, element, args.attempt, purpose, words);
  return block_bits(words, (trial - 1) % 4 * 2 + word);
}

// The grid index, or -1 where no trial is accepted or the envelope cannot serve the element. room: float [kNodeRoom].
PK_HD int32_t kde_draw_by_envelope(const KdeElement& in, const KdeKernel& kernel, const KdeEnvelope& envelope,
                                   float exponent_scale, float* room) {
  const KdeEmArgs& args = in.args;
  float* nodes = room + 2;
  if (!envelope.usable) return -1;
  const int32_t grid_points = static_cast<int32_t>(args.grid_points);
  const EnvelopeShape<float, int32_t> shape = envelope_shape(in.lo, in.hi, in.step, in.inverse, envelope, grid_points);
  if (shape.shift < 0) return -1;
  float best;
  const int32_t total = kde_envelope_of(in, shape, envelope, exponent_scale, nodes, best);
  const uint64_t element = args.first_element + static_cast<uint64_t>(in.element);
  for (int trial = 0; trial < kTrials; ++trial) {
    const uint64_t first = kde_trial_bits(args, element, trial, 0), second = kde_trial_bits(args, element, trial, 1);
    const uint32_t low = static_cast<uint32_t>(first), point_low = static_cast<uint32_t>(second);
    const int32_t target = static_cast<int32_t>(scale_to_word(
        low & (~0u << envelope.offset_bits), static_cast<uint32_t>(first >> 32), static_cast<uint32_t>(total)));
    const int32_t node = find_node(nodes, 1, shape.nodes, target);
    const Proposal<float, int32_t> proposal = propose<float>(node, weights_around(nodes, 1, node), shape.shift,
                                                             low_uniform(low, shape.shift, envelope.offset_bits),
                                                             low_uniform(point_low, shape.shift, envelope.offset_bits));
    const int32_t k = proposal.point;
    const float r = smaller(in.lo + in.step * to_float(k), in.hi);
    // Computed whether or not the point lies on the grid, which depends on the members.
    const bool below = accepts(kde_score_sum(in, kernel, r), best, proposal.bound, exponent_scale, envelope.offset_bits,
                               point_low, static_cast<uint32_t>(second >> 32));
    const bool accepted = below & (k >= 0) & (k < grid_points);
    if (accepted) return k;
  }
  return -1;
}

// The sums of K / w_max at all grid points by the nodes; `best` becomes the largest of them and 0. False, with nothing
// done, where the nodes do not serve the element, which its range and bandwidth alone decide. scores [R], sums
// [node_room(R)] and levels [2, level_room(R)] are `stride` floats apart.
PK_HD bool kde_scores_by_nodes(const KdeElement& in, const KdeNodes& nodes, float* scores, float* sums, float* levels,
                               int64_t stride, float& best) {
  int shift;
  const NodeShape<float> shape = node_shape(in.lo, in.hi, in.step, in.inverse, nodes, shift);
  if (shift < 0) return false;
  const int64_t grid_points = in.args.grid_points;
  const auto member = [&](int64_t i) { return KdeElement::member(in, i); };
  const auto middle = [&](int group, float& high, float& low) {
    node_middle(in.lo, in.step, shift, nodes, group, high, low);
  };
  const int count = node_count(nodes, node_intervals(grid_points, shift));
  sum_nodes(in.args.num_members, member, middle, shape, count, sums, stride);
  best = spread_nodes(nodes, shape, shift, grid_points, sums, scores, levels, stride);
  return true;
}

}  // namespace privkernels
