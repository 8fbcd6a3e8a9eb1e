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

}  // namespace privkernels
