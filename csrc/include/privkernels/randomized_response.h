// randomized_response: K-ary randomised response (Warner 1965 for K = 2; Kairouz, Oh and Viswanath 2016).
//
// A value v in [0, K) is kept with probability threshold / 2^64, and otherwise replaced by one of the other K - 1
// values. With the coin c and the choice d, 64 random bits each:
//
//   out = v                        where c < threshold
//   out = j + (j >= v)             else, j = floor(d (K - 1) / 2^64)
//
// so j has probability (ceil((j + 1) 2^64 / (K - 1)) - ceil(j 2^64 / (K - 1))) / 2^64: the law is an exact rational.
// The threshold is the caller's; privkernels.ops.randomized_response_law chooses it in whole numbers so that the
// largest ratio of two probabilities of one output is at most e^epsilon.
//
// Sizes      N >= 0; 2 <= K <= 2^31.
// Range      every value in [0, K), else kInvalidParameter names the first element in order. On an error the output
//            is unspecified.
// Randomness word (first_element + j) mod 8 of the block (first_element + j) / 8 under kPurposeRandomizedResponse
//            (csrc/core/chacha20.h), attempt 0 for the coin and 1 for the choice. A result depends on (key,
//            first_element + j) and the value alone: not on threads, strides, slicing or instruction set. CUDA is
//            written to give the same; no GPU has run the comparison yet
//            (tests/ops/test_randomized_response_cuda.py).
// Time       A function of N, K and the instruction set alone: both words are drawn and used for every element.
#pragma once

#include <cstdint>

#include "privkernels/status.h"

namespace privkernels {

struct RandomizedResponseArgs {
  const int64_t* values;  // [N]
  int64_t stride;         // of values, in elements
  int64_t num_elements;   // N
  int64_t categories;     // K
  uint64_t threshold;
  uint32_t key[8];         // derived from the release's label
  uint64_t first_element;  // global index of element 0; first_element + N < 2^63
  int64_t* out;            // [N]
};

// Runs on `threads` threads (>= 1) with the fastest instruction set, or the one PRIVKERNELS_ISA names.
Status randomized_response_cpu(const RandomizedResponseArgs& args, int threads);

// Device pointers throughout, `stream` a cudaStream_t, on `device`. failure: int64 [1] on the device holding -1, set
// to the lowest element out of range. Asynchronous.
Status randomized_response_cuda(const RandomizedResponseArgs& args, int64_t* failure, int device, void* stream);

}  // namespace privkernels
