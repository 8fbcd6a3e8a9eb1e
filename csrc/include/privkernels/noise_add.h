// noise_add: integer noise K (discrete Laplace or discrete Gaussian) on a power-of-two grid, added to a tensor.
//
// For element j, with granularity g = 2^exponent:
//
//   output[j] = round_to_format(g * (z + K)),   z = clamp(x_j / g rounded half to even, +-2^50)
//
// The grid, and with it the set of values that can come out, does not depend on x. z + K is exact in int64; the one
// rounding after it (half to even, straight to the output's format) is post-processing. x -> z changes
// distances by at most one step of the grid per element, and clamping by nothing: a caller whose sensitivity is D
// must count on D + g.
//
// Sizes      N >= 0 (0 does nothing); contiguous; input and output may be the same memory, and need not be aligned.
// Formats    float32, float16, bfloat16 (IEEE binary32 and binary16, and the upper half of binary32). Results
//            beyond the format's largest finite number become that number, never infinity. A zero is always +0.
// Finite     NaN or infinity in x: kNonFinite names the first element in order; the outputs are then unspecified.
// Exponent   -100 to 100, so that x / g, g (z + K) and float32 and bfloat16 results are normal numbers (or 0) and
//            flushing denormals changes nothing. Round to nearest is assumed.
// Noise      K is put together from `num_tables` alias tables, built by privkernels.ops.noise_law, where the law and
//            its exact distance from the ideal one are derived. The largest |K| of the tables is below 2^49.
// Randomness One 64-bit word for each table t: draw t of element first_element + j in the spread layout of
//            csrc/core/chacha20.h, purpose kPurposeNoiseAdd. Same bits on every instruction set, number of threads
//            and slicing; CUDA is written to agree (tests marked `gpu` compare it; no GPU has run them yet).
// Time       The instructions executed depend on N, the format and the tables' sizes alone: no branch depends on x or
//            on a random bit (but for the search of the element to name once x is not finite). The addresses of
//            table look-ups depend on the random bits, not on x.
#pragma once

#include <cstdint>

#include "privkernels/format.h"
#include "privkernels/status.h"

namespace privkernels {

enum class NoiseDistribution : int32_t { kLaplace = 0, kGaussian = 1 };

// 2^index_bits entries of threshold << (index_bits + sign_bits) | alias, sign_bits = 1 for the Gaussian and else 0.
struct NoiseTable {
  const uint64_t* entries;
  int64_t multiplier;  // grid steps that one unit of the outcome is worth
  int32_t index_bits;  // 1 to 14
};

constexpr int kMaxNoiseTables = 8;

struct NoiseAddArgs {
  const void* input;  // [N], or null for the noise alone
  void* output;       // [N] of the same format, or null
  int64_t* steps;     // [N] K, or null
  FloatFormat format;
  int64_t num_elements;  // N
  int32_t exponent;
  NoiseDistribution distribution;
  int32_t num_tables;  // 1 to 8; the Laplace's last one draws digit and sign together
  NoiseTable tables[kMaxNoiseTables];
  uint32_t key[8];         // derived from the release's label
  uint64_t first_element;  // global index of element 0
};

// Runs on `threads` threads (>= 1) with the fastest instruction set, or the one PRIVKERNELS_ISA names.
Status noise_add_cpu(const NoiseAddArgs& args, int threads);

// Device pointers throughout (the tables' entries too, and the input aligned to its format), `stream` a cudaStream_t,
// on `device`. failure: int64 [1] on the device, set to the first element that is not finite, or left at -1.
// Asynchronous.
Status noise_add_cuda(const NoiseAddArgs& args, int64_t* failure, int device, void* stream);

}  // namespace privkernels
