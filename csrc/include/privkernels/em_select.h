// em_select: choose candidates by their scores, with the exponential mechanism or with permute-and-flip; one draw
// per segment of scores, or k draws without replacement.
//
// For the scores s_0 .. s_{n-1} of one segment, with a_i = exp(multiplier (s_i - max_j s_j)), higher is likelier:
//
//   exponential mechanism   P(i) = a_i / sum_j a_j                                 (McSherry and Talwar 2007)
//   permute-and-flip        P(i) = a_i integral over [0, 1] of prod_{j != i} (1 - a_j v) dv
//                                                                   (McKenna and Sheldon 2020, Algorithm 1)
//
// k > 1 is k such draws, each among the candidates not drawn before (peeling); index keeps the order of drawing.
//
// Layout     Segment s has segment_length scores from s * segment_stride; or, where offsets is not null, those
//            from offsets[s] to offsets[s + 1]. Scores of one segment lie candidate_stride apart. float32, or
//            float64 where is_double. 0 <= S; 1 <= k <= n <= 2^32 in every segment; first_segment + S <= 2^32.
// Finite     |score| <= 2^1022 and no NaN, else kNonFinite names the first segment in order (member) and its
//            first candidate (element). 0 <= multiplier <= 1e300. On an error the output is unspecified.
// Weights    w_i = 2^x_i, x_i = (s_i - max) * (multiplier * log2(e)) in double, one IEEE operation after another
//            (csrc/core/select.h), cut at x = -200; W_i = floor(w_i 2^80), an integer in two limbs of 40 bits;
//            the largest score has W = 2^80 exactly. Sums of W are exact, and so the same in any order.
// Draw       Exponential mechanism: with U of 128 random bits, the index is the number of cumulative sums of W at
//            or below floor(U sum_j W_j / 2^128).
//            Permute-and-flip: candidate i has a coin, heads when its 80 random bits are below W_i, and a priority
//            of 128 random bits; the index is the candidate with heads that has the smallest priority, the lower
//            one of equals. This is permute-and-flip: there, candidates are visited in a random order and the
//            first whose coin shows heads is returned. The coins are independent of each other and of the order,
//            so tossing all of them beforehand, also those that would not have been looked at, changes nothing;
//            independent priorities without ties put the candidates in uniformly random order, and the first
//            with heads in that order is the one of smallest priority. A maximum's coin is always heads.
// Randomness ChaCha20 (csrc/core/chacha20.h). Exponential mechanism: words 0 to 3 of the block (first_segment + s,
//            peel, kPurposeEmSelect). Permute-and-flip: candidate i has words 8 (i mod 2) to 8 (i mod 2) + 7 of
//            the block with word 12 = i / 2, 13 = first_segment + s, 14 = peel, 15 = kPurposePermuteAndFlip: the
//            coin in the first 80 bits of words 0 to 2, the priority in words 4 to 7. A draw depends on (key,
//            first_segment + s, peel) and the segment's scores alone: not on threads, strides, slicing or
//            instruction set. CUDA is written to give the same indices; no GPU has run the comparison yet
//            (tests/ops/test_em_select_cuda.py).
// Accuracy   With u = 2^-53: x_i has a relative error below 4.01 u (difference, log2(e), its product with the
//            multiplier, and the last product) and 2^x one below 2^-50. Where x >= -81, so wherever W > 0, ln w_i
//            is therefore within
//                e = 81 ln 2 * 4.01 u + 2^-50 < 2^-45.1
//            of multiplier (s_i - max). Let Q be the mechanism for the scores perturbed by these errors (by none
//            where x < -81). Q is the exact mechanism for perturbed scores, and the range of the privacy loss
//            compares two candidates in two data sets, so the epsilon of a draw (bounded range or pure) grows by
//                at most 4 e < 2^-43.1.
//            The law of the integers differs from Q in total variation by at most
//                exponential mechanism   n (2^-80 + 2^-128)
//                permute-and-flip        n 2^-80 + n^2 2^-129      (coins; ties of priorities)
//            since cutting takes less than 2^-80 from each weight, and the weights sum to 1 or more; this goes
//            into delta. k draws cost k times both (adaptive composition).
//            (privkernels.ops.em_select_accuracy has all of these.)
// Time       A function of the layout, k and the instruction set alone: every pass visits every candidate, and no
//            branch or address depends on a score, but for the re-reading of the block of 128 candidates that holds
//            the index returned. Not covered: an error ends early; some processors take longer over denormal
//            numbers (float32 scores below 2^-126 in magnitude; in float64, differences times multiplier below 2^-255).
#pragma once

#include <cstdint>

#include "privkernels/status.h"

namespace privkernels {

struct EmSelectArgs {
  const void* scores;  // float or double, aligned to its size
  bool is_double;
  int64_t num_segments;      // S
  const int64_t* offsets;    // [S + 1], in candidates; or null for rows
  int64_t segment_length;    // n of every row; not used where offsets are given
  int64_t segment_stride;    // in elements, as the next one
  int64_t candidate_stride;  // may be 0 or negative
  double multiplier;         // per unit of score
  int64_t k;
  bool permute_and_flip;   // else the exponential mechanism
  uint32_t key[8];         // derived from the release's label
  uint64_t first_segment;  // global index of segment 0
  int64_t* index;          // [S, k] row-major, each within its segment
};

// Runs on `threads` threads (>= 1) with the fastest instruction set, or the one PRIVKERNELS_ISA names.
Status em_select_cpu(const EmSelectArgs& args, int threads);

// Device pointers throughout, `stream` a cudaStream_t, on `device`. copy: where k > 1, room for a contiguous copy
// of all scores (offsets[S] or S * segment_length of them), else null. failure: int64 [1] on the device holding -1,
// set to the lowest position (counted over all segments, one after another) of a score that is not finite.
// Offsets are the caller's to check. A segment is the work of one thread block, so few segments of millions of
// candidates leave most of a GPU idle. Asynchronous.
Status em_select_cuda(const EmSelectArgs& args, void* copy, int64_t* failure, int device, void* stream);

}  // namespace privkernels
