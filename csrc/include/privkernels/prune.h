// prune: which parameters of a model are kept.
//
//   prune_mask      the `keep` largest of all entries of all segments together; as bools, bits, or the entries with
//                   the others set to +0 (the Euclidean projection onto at most `keep` non-zeros; Zhang et al., ECCV
//                   2018, Eq. 8)
//   prune_pattern   the n largest magnitudes of every m neighbours (N:M; 2:4 is what sparse tensor cores take)
//   prune_random    every entry by itself, with the probability of Mao et al. (TPDS 2022), Eq. 7
//   prune_apply     +0 where a mask says so
//
// Order      prune_mask compares magnitudes (|-0| = |+0|), or signed values with -0 = +0; prune_pattern magnitudes. As
//            integers, so the order is exact, denormals and infinities included. Ties go to the lower index, and to the
//            earlier segment. So exactly `keep` entries are kept, and the result is one function of the input: CPU
//            and CUDA agree to the bit, whatever the threads, strides or instruction set.
// Threshold  The keep-th largest magnitude or value, exactly, in the format of the scores; +infinity for keep = 0.
// Input      Infinities are ranked; NaN is refused: kNonFinite names segment and element, the first in order. After an
//            error masks are unspecified, but projecting in place has changed nothing.
// Bits       Entry i is bit i mod 8 of byte i div 8 (numpy.packbits, bitorder="little"); unused bits of a segment's
//            last byte are 0.
// Patterns   Groups begin at the start of the axis. A last group of r < m entries keeps its min(n, r) largest, as if
//            it were filled up with zeros, which is what the hardware sees.
// Random     p = (w - low) / (high - low), three IEEE double operations, and 1 for low = high (Eq. 7 is then 0 / 0). An
//            entry is kept where u < p, u = the top 52 bits of one 64-bit word, over 2^52: with probability
//            ceil(2^52 p) / 2^52 exactly. The word is that of element first_element + i in the spread layout of
//            core/chacha20.h, draw 0, under kPurposePrune. Importances outside [low, high], NaN included, are
//            refused: kInvalidParameter names the element. Assumes that denormals are not flushed (the other kernels
//            compare integers, and do not).
// Apply      Kept entries keep their bits (NaN too), the others become +0. A bool is 0 or 1.
// Sizes      >= 0 each, less than 2^60 together; keep in [0, sum]; 1 <= n <= m <= 64.
// Time       Linear at worst. prune_mask reads its scores once where a sample brackets the threshold (nearly always),
//            two or three times where the threshold is a value that abounds, and up to ten times where the sample
//            misses, so its time tells something of the values: use it on what is released anyway. prune_random has no
//            branch on a value or a random word; its timing is not tested.
// CUDA       Compiled for sm_80, sm_90 and PTX; compared with the CPU by tests marked `gpu`
//            (tests/ops/test_prune_cuda.py), which no GPU has run yet.
#pragma once

#include <cstdint>

#include "privkernels/format.h"
#include "privkernels/status.h"

namespace privkernels {

enum class PruneOutput : int32_t { kBools = 0, kBits = 1, kValues = 2, kInPlace = 3 };

struct PruneSegment {
  const void* scores;  // [size]
  int64_t stride;      // of scores, in elements
  int64_t size;
  void* output;  // bools [size], bits [ceil(size / 8)], values [size] apart from the scores; kInPlace: the scores
};

struct PruneMaskArgs {
  const PruneSegment* segments;  // [num_segments], in host memory also for CUDA
  int64_t num_segments;
  FloatFormat format;
  bool magnitude;  // else signed values
  int64_t keep;
  PruneOutput output;  // kInPlace needs strides of 1 and segments that do not overlap
  void* threshold;     // one number of the format, or null
};

struct PrunePatternArgs {
  const void* scores;  // [outer, length, inner]
  int64_t outer, length, inner;
  int64_t n, m;
  FloatFormat format;
  uint8_t* mask;  // bools of the same shape
};

struct PruneRandomArgs {
  const void* importance;  // [size]
  int64_t stride;          // in elements
  int64_t size;
  FloatFormat format;
  double low, high;  // finite, and so is high - low
  uint32_t key[8];   // derived from the label
  uint64_t first_element;
  uint8_t* mask;  // bools [size]
};

struct PruneApplyArgs {
  void* values;  // [size], changed in place
  int64_t size;
  int32_t element_bytes;  // 2, 4 or 8
  const uint8_t* mask;    // bools [size] or bits [ceil(size / 8)]
  bool bits;
};

// On `threads` threads (>= 1) with the fastest instruction set, or the one PRIVKERNELS_ISA names.
Status prune_mask_cpu(const PruneMaskArgs& args, int threads);
Status prune_pattern_cpu(const PrunePatternArgs& args, int threads);
Status prune_random_cpu(const PruneRandomArgs& args, int threads);
Status prune_apply_cpu(const PruneApplyArgs& args, int threads);

// Device pointers in the segments and elsewhere, `stream` a cudaStream_t, on `device`. Asynchronous. failure: int64 on
// the device holding -1, set to the first bad element; [1], for prune_mask [num_segments]. With a failure, in-place
// projection changes nothing. workspace: prune_mask_workspace(args) bytes on the device, aligned to 8.
int64_t prune_mask_workspace(const PruneMaskArgs& args);
Status prune_mask_cuda(const PruneMaskArgs& args, void* workspace, int64_t* failure, int device, void* stream);
Status prune_pattern_cuda(const PrunePatternArgs& args, int64_t* failure, int device, void* stream);
Status prune_random_cuda(const PruneRandomArgs& args, int64_t* failure, int device, void* stream);
Status prune_apply_cuda(const PruneApplyArgs& args, int device, void* stream);

}  // namespace privkernels
