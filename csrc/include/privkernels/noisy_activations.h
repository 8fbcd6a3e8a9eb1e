// noisy_activations: clip, cross-channel local response normalisation and Gaussian noise in one pass, and its gradient.
//
// For example b, channel c of C and position s (everything behind the channels, flattened), all in this order:
//
//   v = x, or max(x, 0) unless is_signed
//   a = v                          kNone
//       min(max(v, -clip), clip)   kClamp
//       v * scale_b                kNorm; scale_b = 1 if n_b <= clip, else clip / n_b (1 - 2^-22; 2^-48 for float64),
//                                  n_b the Euclidean norm of v over the whole example, in double
//   y = a / (gamma + alpha sum_j a_j^2)^beta,  j from max(0, c - window / 2) to min(C - 1, c + window / 2)
//   output = y + noise_std Z       kFloat
//            round_to_format(g (clamp(y / g rounded half to even, +-2^50) + K)),  g = 2^exponent   kGrid
//
// window / 2 is rounded down, so an even window reaches as far as the next odd one; alpha is not divided by the window.
// window = 0 leaves normalisation out (y = a).
//
// Sizes      batch, channels, positions >= 0 (0 elements: nothing is done); dense, in the order [b][c][s], or [b][s][c]
//            where channels_last is set. Input and output are different memory, aligned to their formats.
// Formats    float32, float16, bfloat16: arithmetic in float32. float64: arithmetic in float64. float32 denormals
//            (bfloat16's too) are read as 0. Without grid noise a result is rounded once, half to even, to the format,
//            and what lies beyond its largest finite number becomes that number.
// Finite     NaN or infinity in x, or, where normalisation is on and clip_kind is kNone, a magnitude above 2^40 (its
//            square would not fit), or for float64 one above 2^500: kNonFinite names the first element, counted in the
//            order [b][c][s]; the outputs are then unspecified.
// Ranges     gamma 2^-40 to 2^40, alpha 2^-40 to 2^20, beta above 0 up to 2, clip 2^-40 to 2^40, noise_std up to
//            2^40, at most 2^20 channels where normalisation is on. Round to nearest is assumed.
// Accuracy   y is within beta (n + 4) 2^-24 + 2^-20 relative of the exact value for the a that was computed, n
//            the number of channels in the window (float64: beta (n + 4) 2^-53 + 2^-42), and y never exceeds a /
//            gamma^beta by more than 2^-20 relative. kNorm: in float32 and float64 the norm of the computed a is at
//            most clip; in float16 and bfloat16 that holds before the result is rounded to the format.
// Float noise   Z is a function of 31 of an element's 32 random bits: the inverse normal distribution function, falling
//            with the tail that the bits stand for, up to 5e-7, and |Z| at most 6.24. Its law is within 7e-8 of the
//            normal one (largest distance of distribution functions). This was computed over all words; a test
//            repeats the law's distance for a part of them. It is a float that is added to a float: no privacy proof
//            covers it (Mironov 2012). It is what the paper does.
// Grid noise K is as in noise_add.h, and as there rounding to the grid may move each element by half a step, so the L2
//            sensitivity D of a tensor of n elements becomes D + g sqrt(n).
// Randomness Purpose kPurposeNoisyActivations; element e is first_element + (b C + c) positions + s in both memory
//            orders. Grid: 64-bit word of draw 16 attempt + t for table t in the spread layout of csrc/core/chacha20.h.
//            Float: 32-bit word of draw 16 attempt + 8 in its half-word spread layout. Whoever holds the key can draw
//            all of it again.
// Gradient   Of y with respect to x for a given gradient of the output; the noise has none and is not drawn. Where
//            a value is clipped to a bound the gradient is 0, on the bound 1 (as torch.clamp's). The norm's own
//            gradient is included. Gradients are not checked: NaN and infinity in them go through the sums. x is not
//            checked again.
// Same bits  on every instruction set, number of threads and memory order, and for any slicing into whole examples.
// CUDA
//            is written to agree (tests marked `gpu` compare it; no GPU has run them yet).
// Time       The instructions executed depend on sizes and parameters alone, not on x or on random bits (but for the
//            search of an element that is not finite); look-ups of grid noise as in noise_add.h, and those of float
//            noise in a table of 1 KiB (in registers with AVX-512). In proportion to the window where it is above 7.
#pragma once

#include <cstdint>

#include "privkernels/format.h"
#include "privkernels/noise_add.h"
#include "privkernels/status.h"

namespace privkernels {

enum class ActivationClip : int32_t { kNone = 0, kClamp = 1, kNorm = 2 };
enum class ActivationNoise : int32_t { kNone = 0, kFloat = 1, kGrid = 2 };

struct NoisyActivationsArgs {
  const void* input;  // [batch, channels, positions] of `format`
  const void* grad;   // gradient of the output, float32 (float64 for kFloat64); null for the forward direction
  void* output;       // as input; for the gradient as grad
  FloatFormat format;
  int64_t batch, channels, positions;
  bool channels_last;  // of all three tensors
  ActivationClip clip_kind;
  double clip;
  bool is_signed;
  int64_t window;  // 0 for no normalisation
  double alpha, beta, gamma;
  ActivationNoise noise;
  double noise_std;    // of kFloat
  int32_t exponent;    // of kGrid, -100 to 100, like the tables
  int32_t num_tables;  // 1 to 8
  NoiseTable tables[kMaxNoiseTables];
  uint32_t key[8];         // derived from the release's label
  uint64_t first_element;  // global index of element 0
  uint32_t attempt;        // below 2^28
};

// Forward where args.grad is null, else the gradient. Runs on `threads` threads (>= 1) with the fastest instruction
// set, or the one PRIVKERNELS_ISA names.
Status noisy_activations_cpu(const NoisyActivationsArgs& args, int threads);

// Doubles of device memory that noisy_activations_cuda needs.
int64_t noisy_activations_cuda_workspace(const NoisyActivationsArgs& args);

// Device pointers throughout (the tables' entries too), `stream` a cudaStream_t, on `device`. failure: int64 [1] on the
// device, set to the first element that is refused, or left at -1. Asynchronous.
Status noisy_activations_cuda(const NoisyActivationsArgs& args, double* workspace, int64_t* failure, int device,
                              void* stream);

}  // namespace privkernels
