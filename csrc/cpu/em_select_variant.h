// Between the entry point of em_select (em_select_entry.cpp) and its variants (em_select.cpp, once per
// instruction set). Also the checks that CPU and CUDA share.
#pragma once

#include "core/select.h"
#include "privkernels/em_select.h"

namespace privkernels {

// One segment's scores, contiguous. Candidates drawn in earlier peels have been set to -infinity.
struct SelectScores {
  const void* at;
  int64_t count;
  bool is_double;
  double largest;  // of the candidates that are left
  double scale;    // log2 of a weight per unit of score
};

struct SelectLargest {
  double value;
  bool usable;  // every score is finite and at most kLargestScore in magnitude
};

// Which random bits permute-and-flip uses.
struct SelectAddress {
  const uint32_t* key;
  uint32_t segment, peel;
};

struct EmSelectVariant {
  // Over candidates [begin, end).
  SelectLargest (*largest)(const SelectScores&, int64_t begin, int64_t end);
  // The sum of the integer weights of each block in [first, last), to totals[block].
  void (*totals)(const SelectScores&, int64_t first, int64_t last, Wide* totals);
  // The candidate of one block where the cumulative sum of its weights first exceeds `target`.
  int64_t (*locate)(const SelectScores&, int64_t block, Wide target);
  // Permute-and-flip over the blocks [first, last).
  Accepted (*permute)(const SelectScores&, int64_t first, int64_t last, const SelectAddress&);
};

namespace base {
EmSelectVariant em_select_variant();
}
namespace avx2 {
EmSelectVariant em_select_variant();
}
namespace avx512 {
EmSelectVariant em_select_variant();
}

PK_HD int64_t select_length(const EmSelectArgs& args, int64_t segment) {
  return args.offsets ? args.offsets[segment + 1] - args.offsets[segment] : args.segment_length;
}

// Everything but the offsets, which lie on the device for CUDA.
static inline Status check_em_select(const EmSelectArgs& args) {
  const auto invalid = [](const char* message) { return Status{StatusCode::kInvalidArgument, -1, -1, message}; };
  if (args.num_segments < 0) return invalid("em_select needs 0 or more segments");
  if (args.first_segment > (uint64_t{1} << 32) ||
      args.first_segment + static_cast<uint64_t>(args.num_segments) > (uint64_t{1} << 32)) {
    return invalid("em_select needs first_segment + segments of at most 2^32");
  }
  if (args.k < 1) return invalid("em_select needs k of 1 or more");
  if (!(args.multiplier >= 0 && args.multiplier <= kLargestMultiplier)) {
    return invalid("em_select needs a multiplier in [0, 1e300]");
  }
  if (args.num_segments > 0 && !args.offsets && args.segment_length < args.k) {
    return invalid("em_select needs k or more candidates in every segment");
  }
  if (!args.offsets && args.segment_length > (int64_t{1} << 32)) {
    return invalid("em_select takes at most 2^32 candidates in a segment");
  }
  return {};
}

}  // namespace privkernels
