// kmeans1d on the CPU: the loops over all values. Compiled once for each instruction set, in a namespace of its own,
// and without the standard library (see noise_add.cpp).
#include "kmeans1d_variant.h"

namespace privkernels {
namespace PK_ISA {
namespace {

typedef double SumLanes __attribute__((vector_size(kKmeansLanes * 8)));
typedef float ValueLanes __attribute__((vector_size(kKmeansLanes * 4)));

int64_t make_keys(const float* values, int64_t size, uint32_t* keys, uint32_t* histograms) {
  constexpr int kTile = 256;
  for (int64_t at = 0; at < size; at += kTile) {
    const int count = static_cast<int>(size - at < kTile ? size - at : kTile);
    uint32_t bad = 0;
    for (int i = 0; i < count; ++i) {
      bad |= is_finite(values[at + i]) ? 0u : 1u;
      keys[at + i] = order_key(values[at + i]);
    }
    if (bad != 0) {
      int64_t first = at;
      while (is_finite(values[first])) ++first;
      return first;
    }
    for (int i = 0; i < count; ++i) {
      const uint32_t key = keys[at + i];
      for (int pass = 0; pass < kRadixPasses; ++pass) {
        ++histograms[pass * kRadixSize + static_cast<int>((key >> (pass * kRadixBits)) % kRadixSize)];
      }
    }
  }
  return -1;
}

SumLanes load(const float* x) {
  ValueLanes values;
  __builtin_memcpy(&values, x, sizeof values);
  return __builtin_convertvector(values, SumLanes);
}

double combine(SumLanes sum) {
  double lanes[kKmeansLanes];
  __builtin_memcpy(lanes, &sum, sizeof lanes);
  return combine_lanes(lanes);
}

void block_sums(const float* sorted, int64_t size, double* sums) {
  const int64_t whole = size / kKmeansBlock;
  for (int64_t block = 0; block < whole; ++block) {
    SumLanes sum = {};
    for (int i = 0; i < kKmeansBlock; i += kKmeansLanes) sum += load(sorted + block * kKmeansBlock + i);
    sums[block] = combine(sum);
  }
  if (whole * kKmeansBlock < size) {
    sums[whole] = part_sum(sorted + whole * kKmeansBlock, 0, static_cast<int>(size % kKmeansBlock));
  }
}

double block_inertia(const float* sorted, const double* centroids, int size) {
  if (size == kKmeansBlock) {
    SumLanes sum = {};
    for (int i = 0; i < kKmeansBlock; i += kKmeansLanes) {
      SumLanes own;
      __builtin_memcpy(&own, centroids + i, sizeof own);
      const SumLanes off = load(sorted + i) - own;
      sum += off * off;
    }
    return combine(sum);
  }
  double lanes[kKmeansLanes] = {};
  for (int i = 0; i < size; ++i) {
    const double off = static_cast<double>(sorted[i]) - centroids[i];
    lanes[i % kKmeansLanes] += off * off;
  }
  return combine_lanes(lanes);
}

template <class Index>
void compare_all(const float* values, int64_t size, const float* boundaries, int64_t m, Index* assignment) {
  constexpr int kTile = 128;
  for (int64_t at = 0; at < size; at += kTile) {
    const int count = static_cast<int>(size - at < kTile ? size - at : kTile);
    float tile[kTile] = {};
    int32_t below[kTile] = {};
    __builtin_memcpy(tile, values + at, static_cast<uint64_t>(count) * sizeof(float));
    for (int64_t j = 0; j < m; ++j) {
      const float boundary = boundaries[j];
      for (int i = 0; i < kTile; ++i) below[i] += static_cast<int32_t>(tile[i] > boundary);
    }
    for (int i = 0; i < count; ++i) assignment[at + i] = static_cast<Index>(below[i]);
  }
}

template <class Index>
void assign_as(const float* values, int64_t size, const float* boundaries, int64_t m, const uint32_t* table,
               void* assignment) {
  Index* out = static_cast<Index*>(assignment);
  if (table == nullptr) {
    if (m <= 24) return compare_all(values, size, boundaries, m, out);
    for (int64_t i = 0; i < size; ++i) out[i] = static_cast<Index>(boundaries_below(values[i], boundaries, 0, m));
    return;
  }
  for (int64_t i = 0; i < size; ++i) {
    const float v = values[i];
    const uint32_t bucket = order_key(v) >> 16;
    const uint32_t low = table[bucket], high = table[bucket + 1];
    // Most buckets hold one boundary or none; boundaries[m] is readable and above every value.
    if (__builtin_expect(high - low <= 1, 1)) {
      out[i] = static_cast<Index>(low + static_cast<uint32_t>(v > boundaries[low]));
    } else {
      out[i] = static_cast<Index>(boundaries_below(v, boundaries, low, high));
    }
  }
}

void assign(const float* values, int64_t size, const float* boundaries, int64_t m, const uint32_t* table,
            int index_bytes, void* assignment) {
  if (index_bytes == 1) return assign_as<uint8_t>(values, size, boundaries, m, table, assignment);
  if (index_bytes == 2) return assign_as<int16_t>(values, size, boundaries, m, table, assignment);
  assign_as<int32_t>(values, size, boundaries, m, table, assignment);
}

template <class Index>
int64_t split_as(const Kmeans1dSplitArgs& args, int64_t begin, int64_t end) {
  const Index* assignment = static_cast<const Index*>(args.assignment);
  const KmeansGrid grid = kmeans_grid(args.centroid_bits, args.residual_bits);
  for (int64_t i = begin; i < end; ++i) {
    const float centroid = args.centroids[static_cast<int64_t>(assignment[i])];
    if (!split_value(args.values[i], centroid, grid, args.residual + i, args.reconstructed + i)) return i;
  }
  return -1;
}

int64_t split(const Kmeans1dSplitArgs& args, int64_t begin, int64_t end) {
  if (args.index_bytes == 1) return split_as<uint8_t>(args, begin, end);
  if (args.index_bytes == 2) return split_as<int16_t>(args, begin, end);
  return split_as<int32_t>(args, begin, end);
}

}  // namespace

extern const KmeansLoops kmeans_loops = {make_keys, block_sums, block_inertia, assign, split};

}  // namespace PK_ISA
}  // namespace privkernels
