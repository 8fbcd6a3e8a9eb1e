// kmeans1d: k-means of numbers, and the split of numbers into centroid and truncated residual.
//
// Sizes      values [N] float32, contiguous, N >= 1 for kmeans1d and >= 0 for the split; 1 <= k <= 65536.
// Finite     NaN or infinity: kNonFinite names the first element in order; the outputs are then unspecified.
// Centroids  float32, strictly increasing; m = min(k, D) of them, D the number of distinct values (-0 is 0). The
//            places from m on repeat the last. Each is the mean of its cluster, kept within the cluster's least and
//            largest value and rounded to float32. Where D <= k they are the distinct values.
// Assignment The nearest centroid, ties to the lower, decided exactly (not in float32).
// Optimal    Dynamic programming over the distinct values, O(k D log D), k D <= 2^26; least split where costs tie.
//            The costs come from float64 sums outwards from the median: the inertia is within about
//            D 2^-52 sum (v - median)^2 of the least one.
// Lloyd      Starts at the values of rank floor((2 i + 1) N / (2 k)); where some of these coincide, the missing ones
//            are taken in the same way from the distinct values that are not among them. Then up to `iterations`
//            times: assign, take means; ends where no centroid moves. A cluster that is empty keeps its centroid.
// Auto       Optimal where k D <= 2^20, else Lloyd.
// Accuracy   A cluster's sum is in float64: blocks of 64 in 8 lanes, 64 of these in a group, groups one after another
//            outwards from zero. Its mean is within 2^-53 (28 + 2 G^2) of the largest magnitude in the cluster,
//            G = N / 4096 + 1, before it is rounded to float32 (2^-24 of itself); inertia: relative 2^-53 (32 + G).
//            Assumes that denormals are not flushed.
// Same bits  On every instruction set and number of threads. CUDA is written to give them too: it sums in the same
//            blocks, lanes and order, in float64 without contraction. It was compiled, and no GPU has run it yet.
// Split      With centroids and residuals on grids of 2^-p_c and 2^-p_r (Truncate in Algorithm 3 of Mao et al., TPDS
//            2022): r = trunc((v - c) 2^p_r), exact, towards zero; reconstructed (c + r 2^-p_r) rounded once to
//            float32. kInvalidParameter names an element whose |v| 2^max(p_c, p_r) reaches 2^51 or whose |r| reaches
//            2^31.
// CUDA       Sorts, sums, searches and assigns on the device; choices of the method and the start are made on the host,
//            so the call waits for the stream several times (once per 16 iterations of Lloyd), and cannot be captured
//            in a CUDA graph. Where the optimal method is asked for or chosen, D <= k, or starting values coincide, the
//            sorted values are copied to the host (4 N bytes), which finds the distinct ones and runs the dynamic
//            programming. The workspace has about 8 N + N / 8 bytes and what the radix sort asks for.
#pragma once

#include <cstdint>

#include "privkernels/status.h"

namespace privkernels {

enum class KmeansMethod : int32_t { kAuto = 0, kOptimal = 1, kLloyd = 2 };

struct Kmeans1dArgs {
  const float* values;  // [N]
  int64_t num_values;   // N
  int64_t k;
  int64_t iterations;  // >= 0, of Lloyd
  KmeansMethod method;
  int32_t index_bytes;  // 1 (k <= 256), 2 (k <= 32768) or 4: width of an index
  float* centroids;     // [k]
  void* assignment;     // [N]
  double* inertia;      // [1] sum of (v - c)^2; in host memory for CUDA too
  int64_t* summary;     // [3] m, the method used, iterations done; in host memory for CUDA too
};

struct Kmeans1dSplitArgs {
  const float* values;     // [N]
  int64_t num_values;      // N
  const float* centroids;  // [m], strictly increasing, on the grid of 2^-p_c
  int64_t num_centroids;   // m, 1 to 65536
  int32_t centroid_bits;   // p_c, 0 to 40
  int32_t residual_bits;   // p_r, 0 to 40
  int32_t index_bytes;
  void* assignment;      // [N]
  int32_t* residual;     // [N], steps of 2^-p_r
  float* reconstructed;  // [N]
};

// Run on `threads` threads (>= 1) with the fastest instruction set, or the one PRIVKERNELS_ISA names.
Status kmeans1d_cpu(const Kmeans1dArgs& args, int threads);
Status kmeans1d_split_cpu(const Kmeans1dSplitArgs& args, int threads);

// On CUDA: pointers on the device, but for those above. `workspace`, aligned to 256 bytes, has the bytes that
// kmeans1d_cuda_workspace writes to `bytes`; for the split, kKmeans1dSplitWorkspace. Values and workspace may be freed
// in the order of the stream when the call has returned.
constexpr int64_t kKmeans1dSplitWorkspace = 65536 * 4 + 256;
Status kmeans1d_cuda_workspace(int64_t num_values, int64_t k, int device, int64_t* bytes);
Status kmeans1d_cuda(const Kmeans1dArgs& args, void* workspace, int device, void* stream);
Status kmeans1d_split_cuda(const Kmeans1dSplitArgs& args, void* workspace, int device, void* stream);

}  // namespace privkernels
