// mask_sum: the ChaCha20 streams of n seeds, added to or subtracted from a vector of integers modulo 2^32 or 2^64.
//
//   values[j] += sum over s of signs[s] * stream_s[first_element + j]     (modulo 2^32 or 2^64)
//
// which masks a client's vector in secure aggregation, and takes the masks off a sum of such vectors. The streams are
// never in memory. Addition modulo a power of two is exact and commutes, so the result is the same in any order: on
// every instruction set, number of threads and slicing; CUDA is written to agree (tests marked `gpu` compare it; no
// GPU has run them yet).
//
// Sizes      N >= 0, n >= 0 (either 0 does nothing). values [N] contiguous, aligned to their width; seeds [n, 32]
//            bytes; signs [n], each 1 or -1 (anything else: kInvalidParameter names the seed).
// Stream     The key stream of RFC 8439's ChaCha20 under the seed as key, with the nonce's 12 bytes made of three
//            little-endian 32-bit words
//                0, round, kPurposeMaskSum (7)
//            and a block counter from 0. 32-bit stream element j is bytes 4 j to 4 j + 3 of the key stream, 64-bit
//            element j bytes 8 j to 8 j + 7, little-endian. RFC 8439's counter ends at 2^32 blocks (2^36 or 2^35
//            elements); block number b beyond has counter b mod 2^32 and b div 2^32 for the nonce's first word.
//            A pair of seed and round masks one vector only: both widths read the same bytes.
// Time       Depends on N, n and the signs; no branch and no address depends on a value or on a seed's bytes.
#pragma once

#include <cstdint>

#include "privkernels/status.h"

namespace privkernels {

struct MaskSumArgs {
  void* values;          // [N] of 32 or 64 bits, read and written
  bool wide;             // 64 bits
  int64_t num_elements;  // N
  const uint8_t* seeds;  // [n, 32]
  const int8_t* signs;   // [n]
  int64_t num_seeds;     // n
  uint32_t round;
  uint64_t first_element;  // index in the streams of element 0
};

// Runs on `threads` threads (>= 1) with the fastest instruction set, or the one PRIVKERNELS_ISA names.
Status mask_sum_cpu(const MaskSumArgs& args, int threads);

// Device pointers throughout, the seeds aligned to 4 bytes, and signs that were checked; `stream` a cudaStream_t, on
// `device`. Asynchronous.
Status mask_sum_cuda(const MaskSumArgs& args, int device, void* stream);

}  // namespace privkernels
