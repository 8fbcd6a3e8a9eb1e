// kde_em: one value for every parameter of a model, drawn by the exponential mechanism from the kernel
// density estimate of that parameter over M trained members (DP-PG, Algorithm 1 of Mao et al. 2022).
//
// For element j, with grid r_k = lo_j + k (hi_j - lo_j) / (R - 1), k = 0 .. R-1:
//
//   u_j(r)  = (1/M) sum_i [ Phi((r - theta_ij + d_j/2) / b_j) - Phi((r - theta_ij - d_j/2) / b_j) ]   (Eq. 3)
//   d_j     = window_ratio * b_j;     0 <= u_j <= w_max = 2 Phi(window_ratio / 2) - 1
//   P(k)    proportional to exp(multiplier * u_j(r_k))
//
// Output: value[j] = r_k as float32, and index[j] = k when index is not null.
//
// Sizes      2 <= M; N >= 0 (N = 0 does nothing); 2 <= R <= 65536.
// Finite     every theta must be finite, else kNonFinite names the first element in order (and its
//            first member). lo <= hi, hi - lo finite, 2^-126 <= b <= 2^100, else kInvalidParameter. lo = hi
//            is allowed: the value is then lo. On an error the outputs are unspecified.
// Draw       Lazily, rejection sampling: an envelope of the weights (csrc/core/kde_envelope.h), built from sums over
//            the members at a few nodes, proposes a grid point, whose score alone is then computed and decides. After 9
//            trials without success, and where the envelope does not serve (window_ratio > 2, R < 8, M > 8192, grid
//            points further apart than about half a bandwidth, a grid 16,000 bandwidths from zero), all R scores are
//            computed and one uniform chooses among them. Time per element is O(M (R / c + trials)) with c as many
//            grid points as fit into half a bandwidth, so R hardly matters.
//            With fixed_work, one uniform chooses among all R scores. They come from sums over the members at nodes, a
//            power of two of grid points and 1/8 to 0.26 bandwidths apart (csrc/core/kde_nodes.h). Where these do not
//            serve (window_ratio > 2, R < 65, M > 8192, grid points further apart than 0.26 bandwidths, a range of
//            fewer than eight to sixteen, by R, a grid 16,384 bandwidths from zero, nodes closer than 2^-126; the
//            members have no say in it), each score is computed by itself, in O(M R). The two draws differ; their laws
//            are both within Accuracy and Resolution of the one above, and so within twice that of each other.
// Randomness ChaCha20(key; ., attempt) at addresses of the element's own (csrc/core/chacha20.h): 128 bits a trial,
//            the first in the spread layout under kPurposeKdeEmTrial (word 0 and 1 in the next byte), four to a
//            block number first_element + j under kPurposeKdeEmRetry after it; and 64 bits of block
//            (first_element + j) / 8 under kPurposeKdeEm for the choice among all. The draw depends on (key,
//            first_element + j, attempt), fixed_work and on element j's inputs alone: not on threads, chunks, strides
//            or instruction set. All paths, CUDA included, are written to execute the same IEEE operations in the same
//            order, and so to agree bit for bit, in the default floating-point environment (round to nearest, denormals
//            kept). Tested for the CPU's; no GPU has run the comparison yet (tests/ops/test_kde_em_cuda.py).
// Accuracy   With u = 2^-24 and B = multiplier * w_max: the score of a grid point is within
//                e = w_max (c + M/8) u,  c = 24 for window_ratio <= 1 and 48 + window_ratio above
//            (an edge of the window lies window_ratio / 2 bandwidths away, and is rounded as such),
//            of Eq. 3 for the released float r_k. By nodes it is within
//                e = w_max (39.9 + 1.7 window_ratio + ceil(M/32) + 4.6 max(0, halvings - 1)) u
//            of Eq. 3 for the real number lo + k (hi - lo) / (R - 1), the step rounded to float, of which r_k is the
//            rounding, cut at hi; halvings = max(0, floor(log2((R - 1) / 63)) - 1). Where both may serve, the larger e
//            holds. The exponent, the envelope and their quotient add at most (4 B + 12) u to the log of a weight. The
//            range of the privacy loss compares four weights (two grid points, two neighbouring data sets), so the
//            epsilon of a draw grows by at most
//                4 multiplier e + 4 (4 B + 12) u.
// Resolution A trial's node and its acceptance are decided by 64 - o bits each, o = max(2, floor(log2 R) - 3):
//            total variation at most 18 (nodes + 1) 2^(o - 64), nodes <= 264. Among all scores, a weight is cut to
//            a multiple of 2^-s, s = 62 - ceil(log2 R), of the largest one, and the uniform draw has 64 bits:
//            R (2^-s + 2^-64). Both from the law of the computed weights; this goes into delta. While exp(B) is
//            far below 2^s it is also a small relative error of every probability, and then goes into epsilon and
//            leaves delta alone (privkernels.ops.kde_em_accuracy has both).
// Time       With fixed_work every element takes the same steps: time depends on M, N, R, lo, hi and bandwidth, not on
//            the members nor on what is drawn (cache and denormals of the inputs aside). Elements of a vector whose
//            nodes lie differently many grid points apart are computed one kind after the other. Without it, an element
//            takes as many trials as it needs.
// Members    float32, float16 or bfloat16, converted exactly.
//
// Source departures: the window is given relative to the bandwidth, so that w_max, and with it the
// sensitivity, is the same for every element; the paper cuts the grid to [MIN, MAX] of the members with a fixed
// spacing, here its ends and its number of points R are given.
#pragma once

#include <cstdint>

#include "privkernels/format.h"
#include "privkernels/status.h"

namespace privkernels {

struct KdeEmArgs {
  const void* const* members;     // [M] pointers, each to [N] with its own stride; need not be aligned
  FloatFormat format;             // of every member; not kFloat64
  const int64_t* member_strides;  // [M] in elements
  int64_t num_members;            // M
  int64_t num_elements;           // N
  const float* lo;                // [N], or one value with stride 0
  int64_t lo_stride;
  const float* hi;  // as lo
  int64_t hi_stride;
  const float* bandwidth;  // as lo
  int64_t bandwidth_stride;
  double window_ratio;     // d / b, in [1e-6, 1e6]
  int64_t grid_points;     // R
  double multiplier;       // lambda of u, >= 0 and finite
  uint32_t key[8];         // derived from the release's label
  uint64_t first_element;  // global index of element 0
  uint32_t attempt;
  bool fixed_work;  // see Time
  float* value;     // [N]; or null for scores only
  int32_t* index;   // [N] or null
  float* scores;    // [N, R] row-major, u_j(r_k), or null
};

// Runs on `threads` threads (>= 1) with the fastest instruction set, or the one PRIVKERNELS_ISA names.
Status kde_em_cpu(const KdeEmArgs& args, int threads);

// Device pointers throughout (members and member_strides too), `stream` a cudaStream_t, on `device`.
// workspace: float [kde_em_cuda_workspace(args)]; failure: int64 [1] on the device, set to the lowest
// failing element times two (plus one when a member is not finite), or left at -1. Asynchronous.
int64_t kde_em_cuda_workspace(const KdeEmArgs& args, int device);
Status kde_em_cuda(const KdeEmArgs& args, float* workspace, int64_t* failure, int device, void* stream);

}  // namespace privkernels
