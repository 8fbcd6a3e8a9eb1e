// Between the entry point of kmeans1d (kmeans1d_entry.cpp) and its variants (kmeans1d.cpp, once per instruction set).
#pragma once

#include "core/kmeans.h"
#include "privkernels/kmeans1d.h"

namespace privkernels {

constexpr int kRadixBits = 8, kRadixPasses = 4, kRadixSize = 1 << kRadixBits;

struct KmeansLoops {
  // keys [N] and histograms [passes, 2^bits] (added to) of the values; returns the first that is not finite, or -1.
  int64_t (*keys)(const float* values, int64_t size, uint32_t* keys, uint32_t* histograms);
  // Sums [blocks] of 64 values each; the last block may be shorter.
  void (*block_sums)(const float* sorted, int64_t size, double* sums);
  // The sum of (v - c)^2 over a block of `size` values, centroids[i] belonging to value i.
  double (*block_inertia)(const float* sorted, const double* centroids, int size);
  // The number of boundaries [m] (increasing) that are below each value. table [65537] as make_table fills it, or null.
  void (*assign)(const float* values, int64_t size, const float* boundaries, int64_t m, const uint32_t* table,
                 int index_bytes, void* assignment);
  // The split of values [begin, end) that were assigned: the element that does not fit, or -1.
  int64_t (*split)(const Kmeans1dSplitArgs&, int64_t begin, int64_t end);
};

namespace base {
extern const KmeansLoops kmeans_loops;
}
namespace avx2 {
extern const KmeansLoops kmeans_loops;
}
namespace avx512 {
extern const KmeansLoops kmeans_loops;
}

}  // namespace privkernels
