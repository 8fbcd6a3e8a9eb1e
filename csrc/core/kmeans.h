// The arithmetic of kmeans1d for one value, one boundary or one block of values.
#pragma once

#include "lanes.h"

namespace privkernels {

constexpr int kKmeansBlock = 64;  // values whose sum is taken in 8 lanes
constexpr int kKmeansGroup = 64;  // blocks of a group
constexpr int kKmeansLanes = 8;

// Unsigned integers in the order of the floats; -0 is 0.
PK_HD uint32_t order_key(float value) {
  const uint32_t bits = to_bits(value + 0.0f);
  return bits ^ ((0u - (bits >> 31)) | 0x80000000u);
}

PK_HD float from_order_key(uint32_t key) {
  return from_bits(key ^ ((key >> 31) != 0 ? 0x80000000u : 0xffffffffu), 0.0f);
}

PK_HD bool is_finite(float value) { return (to_bits(value) & 0x7f800000u) != 0x7f800000u; }

// Whether v is at least as near to a as to b, a < b: 2 v <= a + b, exactly, by the error of the rounded sum.
PK_HD bool nearer_lower(float v, float a, float b) {
  const double x = a, y = b, doubled = 2.0 * static_cast<double>(v), sum = x + y;
  const double part = sum - x;
  const double error = (x - (sum - part)) + (y - part);
  return doubled < sum || (doubled == sum && error >= 0.0);
}

// The largest float that is at least as near to a as to b.
PK_HD float boundary(float a, float b) {
  const float middle = static_cast<float>(0.5 * (static_cast<double>(a) + static_cast<double>(b))) + 0.0f;
  return nearer_lower(middle, a, b) ? middle : from_order_key(order_key(middle) - 1);
}

PK_HD double combine_lanes(const double* lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// The sum of x[lo] to x[hi - 1], a part of 64, in the order of the whole block's sum.
template <class T>
PK_HD double part_sum(const T* x, int lo, int hi) {
  double lanes[kKmeansLanes] = {};
  for (int i = lo; i < hi; ++i) lanes[i % kKmeansLanes] += static_cast<double>(x[i]);
  return combine_lanes(lanes);
}

// --- ranges of sorted values ---

// The first index in [low, high) whose entry is above `limit`, or high; entries do not decrease.
template <class T>
PK_HD int64_t first_above(const T* x, int64_t low, int64_t high, T limit) {
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (x[middle] > limit) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// The number of boundaries below v, which is in [low, high].
PK_HD int64_t boundaries_below(float v, const float* boundaries, int64_t low, int64_t high) {
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (v > boundaries[middle]) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// floor((2 i + 1) size / (2 k)) without overflow.
PK_HD int64_t quantile_rank(int64_t i, int64_t k, int64_t size) {
  const int64_t whole = size / (2 * k), rest = size % (2 * k);
  return (2 * i + 1) * whole + (2 * i + 1) * rest / (2 * k);
}

PK_HD int64_t kmeans_blocks(int64_t size) { return (size + kKmeansBlock - 1) / kKmeansBlock; }
PK_HD int64_t kmeans_groups(int64_t size) { return (kmeans_blocks(size) + kKmeansGroup - 1) / kKmeansGroup; }

// Sorted values, and the sums from which that of any range is put together.
struct KmeansRanges {
  const float* sorted;
  int64_t size;
  const double* sums;  // of each block
  int64_t middle;      // the group that holds zero, or the nearest to it
  double middle_sum;
  const double* before;  // of the groups before this one, from the middle one, which is not counted
};

// The prefix sums of KmeansRanges, outwards from the middle group, so that sums on either side are of numbers of one
// sign, and none holds a number larger than those it is used for. before [groups + 1].
PK_HD void sum_outwards(const double* group_sums, int64_t groups, int64_t middle, double* before) {
  before[middle] = before[middle + 1] = 0.0;
  for (int64_t g = middle + 1; g < groups; ++g) before[g + 1] = before[g] + group_sums[g];
  for (int64_t g = middle - 1; g >= 0; --g) before[g] = before[g + 1] - group_sums[g];
}

struct SerialPart {
  template <class T>
  double operator()(const T* x, int lo, int hi) const {
    return part_sum(x, lo, hi);
  }
};

// Blocks [low, high) of a group, as many as there are. Part is SerialPart, or gives the same with several threads.
template <class Part>
PK_HD double group_part(const KmeansRanges& of, int64_t group, int low, int high, const Part& part) {
  const int64_t first = group * kKmeansGroup, left = kmeans_blocks(of.size) - first;
  return part(of.sums + first, low, left < high ? static_cast<int>(left) : high);
}

// The sum of ranks [begin, end), which is not empty.
template <class Part>
PK_HD double range_sum(const KmeansRanges& of, int64_t begin, int64_t end, const Part& part) {
  const int64_t first = begin / kKmeansBlock, last = (end - 1) / kKmeansBlock;
  const int low = static_cast<int>(begin % kKmeansBlock), high = static_cast<int>((end - 1) % kKmeansBlock) + 1;
  const float *first_block = of.sorted + first * kKmeansBlock, *last_block = of.sorted + last * kKmeansBlock;
  if (first == last) return part(first_block, low, high);
  const double ends = part(first_block, low, kKmeansBlock) + part(last_block, 0, high);
  const int64_t left = first / kKmeansGroup, right = last / kKmeansGroup;
  const int after = static_cast<int>(first % kKmeansGroup) + 1, until = static_cast<int>(last % kKmeansGroup);
  if (left == right) return ends + group_part(of, left, after, until, part);
  const double inner = group_part(of, left, after, kKmeansGroup, part) + group_part(of, right, 0, until, part);
  double between = of.before[right] - of.before[left + 1];
  if (left < of.middle && of.middle < right) between += of.middle_sum;
  return between + (inner + ends);
}

// The mean of ranks [begin, end), which is not empty.
template <class Part>
PK_HD float range_mean(const KmeansRanges& of, int64_t begin, int64_t end, const Part& part) {
  const double exact = range_sum(of, begin, end, part) / static_cast<double>(end - begin);
  const float rounded = static_cast<float>(exact) + 0.0f, least = of.sorted[begin], largest = of.sorted[end - 1];
  const float raised = rounded < least ? least : rounded;
  return largest < raised ? largest : raised;
}

// --- the split ---

struct KmeansGrid {
  double scale, unit;  // 2^max(p_c, p_r) and its reciprocal
  int dropped;         // binary digits of that grid that a residual does not keep
};

PK_HD KmeansGrid kmeans_grid(int centroid_bits, int residual_bits) {
  const int bits = centroid_bits > residual_bits ? centroid_bits : residual_bits;
  const double scale = static_cast<double>(int64_t{1} << bits);
  return {scale, 1.0 / scale, bits - residual_bits};
}

// Writes the residual of v and what is put together again; false where v does not fit the grid.
PK_HD bool split_value(float v, float centroid, const KmeansGrid& grid, int32_t* residual, float* reconstructed) {
  const double scaled = static_cast<double>(v) * grid.scale;  // exact: a power of two
  if (!(scaled > -2251799813685248.0 && scaled < 2251799813685248.0)) return false;
  const double own = static_cast<double>(centroid) * grid.scale;
  if (!(own > -2251799813685248.0 && own < 2251799813685248.0)) return false;
  int64_t floor = static_cast<int64_t>(scaled);
  if (static_cast<double>(floor) > scaled) --floor;
  const bool whole = static_cast<double>(floor) == scaled;
  const int64_t center = static_cast<int64_t>(own);
  int64_t off = floor - center;
  if (off < 0 && !whole) ++off;                              // towards zero
  const int64_t steps = off / (int64_t{1} << grid.dropped);  // towards zero
  if (steps <= -(int64_t{1} << 31) || steps >= int64_t{1} << 31) return false;
  *residual = static_cast<int32_t>(steps);
  *reconstructed = static_cast<float>(static_cast<double>(center + steps * (int64_t{1} << grid.dropped)) * grid.unit);
  return true;
}

}  // namespace privkernels
