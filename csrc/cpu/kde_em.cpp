// kde_em for one instruction set. This file is compiled once for each, in a namespace of its own
// (PK_ISA), with PK_LANES floats to a vector. No standard library here: see core/platform.h.
#include "core/chacha20.h"
#include "core/kde.h"
#include "kde_em_variant.h"

namespace privkernels {
namespace PK_ISA {
namespace {

constexpr int kLanes = PK_LANES;

PK_HD FloatLanes load(const float* from) {
  FloatLanes value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

PK_HD void store(float* to, FloatLanes value) { __builtin_memcpy(to, &value, sizeof value); }

// One value per lane from a strided row; lanes past the end repeat the last element.
PK_HD FloatLanes gather(const float* row, int64_t stride, int64_t first, int count) {
  if (stride == 1 && count == kLanes) return load(row + first);
  float values[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const int64_t element = first + (lane < count ? lane : count - 1);
    __builtin_memcpy(&values[lane], row + element * stride, sizeof(float));
  }
  return load(values);
}

struct Tile {
  const KdeEmArgs& args;
  const KdeEmPlan& plan;
  int64_t first;
  int count;
  FloatLanes lo, hi, step, inverse;
  float* members;  // [M, lanes]
  float* scores;   // [R, lanes]
};

// Reads the tile; false, with the reason in `failure`, when an input is not usable.
bool read_tile(Tile& tile, KdeEmFailure& failure) {
  const KdeEmArgs& args = tile.args;
  tile.lo = gather(args.lo, args.lo_stride, tile.first, tile.count);
  tile.hi = gather(args.hi, args.hi_stride, tile.first, tile.count);
  const FloatLanes bandwidth = gather(args.bandwidth, args.bandwidth_stride, tile.first, tile.count);
  const FloatLanes range = tile.hi - tile.lo;
  tile.step = range / static_cast<float>(args.grid_points - 1);
  tile.inverse = static_cast<float>(kBaseTwo) / bandwidth;
  for (int lane = 0; lane < tile.count; ++lane) {
    const bool usable = range[lane] >= 0.0f && range[lane] <= kLargestFloat &&
                        magnitude(tile.lo[lane]) <= kLargestFloat && bandwidth[lane] >= kSmallestBandwidth &&
                        bandwidth[lane] <= kLargestBandwidth;
    if (!usable) {
      failure = {tile.first + lane, -1};
      break;
    }
  }
  FloatLanes largest = FloatLanes{};
  bool finite = true;
  for (int64_t i = 0; i < args.num_members; ++i) {
    const FloatLanes value = gather(args.members[i], args.member_strides[i], tile.first, tile.count);
    store(tile.members + i * kLanes, value);
    largest = larger(largest, magnitude(value));
    const auto ordered = value == value;  // all ones where not NaN
    for (int lane = 0; lane < kLanes; ++lane) finite = finite && ordered[lane];
  }
  for (int lane = 0; lane < kLanes; ++lane) finite = finite && largest[lane] <= kLargestFloat;
  if (!finite) {
    for (int lane = 0; lane < tile.count && (failure.element < 0 || tile.first + lane < failure.element); ++lane) {
      for (int64_t i = 0; i < args.num_members; ++i) {
        if (!(magnitude(tile.members[i * kLanes + lane]) <= kLargestFloat)) {
          failure = {tile.first + lane, i};
          return false;
        }
      }
    }
  }
  return failure.element < 0;
}

// Sums of K / w_max over the members at every grid point; returns the largest per lane.
template <bool kSeries>
FloatLanes score_tile(const Tile& tile) {
  const int64_t num_members = tile.args.num_members;
  FloatLanes best = FloatLanes{};
  for (int64_t k = 0; k < tile.args.grid_points; ++k) {
    const FloatLanes r = grid_point(tile.lo, tile.hi, tile.step, k);
    FloatLanes total = FloatLanes{};
    for (int64_t begin = 0; begin < num_members; begin += kMemberBlock) {
      const int64_t end = begin + kMemberBlock < num_members ? begin + kMemberBlock : num_members;
      FloatLanes block = FloatLanes{};
      for (int64_t i = begin; i < end; ++i) {
        const FloatLanes x = (r - load(tile.members + i * kLanes)) * tile.inverse;
        block += kSeries ? kde_kernel_series(x, tile.plan.kernel) : kde_kernel_wide(x, tile.plan.kernel);
      }
      total += block;
    }
    store(tile.scores + k * kLanes, total);
    best = larger(best, total);
  }
  return best;
}

void write_scores(const Tile& tile) {
  const int64_t grid_points = tile.args.grid_points;
  for (int lane = 0; lane < tile.count; ++lane) {
    float* row = tile.args.scores + (tile.first + lane) * grid_points;
    for (int64_t k = 0; k < grid_points; ++k) row[k] = tile.scores[k * kLanes + lane] * tile.plan.score_scale;
  }
}

void draw_tile(const Tile& tile, FloatLanes best) {
  const KdeEmArgs& args = tile.args;
  uint64_t total[kLanes] = {};
  for (int64_t k = 0; k < args.grid_points; ++k) {
    float* scores = tile.scores + k * kLanes;
    const FloatLanes exponent = (load(scores) - best) * tile.plan.exponent_scale;
    store(scores, exp2_nonpositive(larger(exponent, constant<FloatLanes>(-125.0f))));
    for (int lane = 0; lane < kLanes; ++lane) total[lane] += integer_weight(scores[lane], tile.plan.two_to_bits);
  }
  uint64_t block = ~uint64_t{0};
  uint32_t words[16];
  for (int lane = 0; lane < tile.count; ++lane) {
    const uint64_t element = args.first_element + static_cast<uint64_t>(tile.first + lane);
    if (element / 8 != block) {
      block = element / 8;
      addressed_block(args.key, block, args.attempt, kPurposeKdeEm, words);
    }
    const uint64_t target = scale_to(element_bits(words, element), total[lane]);
    uint64_t below = 0;
    int64_t k = 0;
    for (;; ++k) {
      below += integer_weight(tile.scores[k * kLanes + lane], tile.plan.two_to_bits);
      if (below > target) break;  // always reached: target < total
    }
    args.value[tile.first + lane] = grid_point(tile.lo[lane], tile.hi[lane], tile.step[lane], k);
    if (args.index) args.index[tile.first + lane] = static_cast<int32_t>(k);
  }
}

}  // namespace

void kde_em_range(const KdeEmArgs& args, const KdeEmPlan& plan, int64_t begin, int64_t end, float* scratch,
                  KdeEmFailure& failure) {
  for (int64_t first = begin; first < end; first += kLanes) {
    const int count = end - first < kLanes ? static_cast<int>(end - first) : kLanes;
    Tile tile{args, plan, first, count, {}, {}, {}, {}, scratch, scratch + args.num_members * kLanes};
    if (!read_tile(tile, failure)) return;
    const FloatLanes best = plan.kernel.use_series ? score_tile<true>(tile) : score_tile<false>(tile);
    if (args.scores) write_scores(tile);
    if (args.value) draw_tile(tile, best);
  }
}

}  // namespace PK_ISA
}  // namespace privkernels
