// Between the entry point of prune (prune_entry.cpp) and its variants (prune.cpp, once per instruction set), and the
// checks that CPU and CUDA share.
#pragma once

#include "core/prune.h"

namespace privkernels {

constexpr int64_t kPruneChunk = 32768;  // entries to a task; a multiple of 8, so that no byte of bits has two writers

// Part of a segment.
struct PruneChunk {
  const char* scores;
  int64_t stride;
  int64_t size;  // 1 to kPruneChunk
  char* output;
};

// Keys from `low` to below `high` are undecided.
struct PruneBracket {
  uint64_t low, high;
};

struct PruneCounts {
  int64_t above = 0;   // at or above `high`
  int64_t inside = 0;  // from `low` to below `high`
  int64_t nan = -1;    // first entry that is NaN
};

struct PruneVariant {
  // Counts, and writes the output as if the entries inside the bracket were pruned (kInPlace: writes nothing). Where
  // keys is not null, the entries inside go to keys and indices in order; room for a chunk.
  PruneCounts (*scan)(const PruneMaskArgs&, const PruneChunk&, PruneBracket, uint64_t* keys, uint32_t* indices);
  // Adds to histogram[(key - low) >> shift] for the keys inside the bracket.
  void (*count)(const PruneMaskArgs&, const PruneChunk&, PruneBracket, int shift, int64_t* histogram);
  // The output for a known threshold key, of whose ties the first `ties` are kept.
  void (*emit)(const PruneMaskArgs&, const PruneChunk&, uint64_t key, int64_t ties);
  // Groups [begin, end) of inner columns, numbered over outer, then group, then inner; returns a NaN's position or -1.
  int64_t (*pattern)(const PrunePatternArgs&, int64_t begin, int64_t end);
  // Entries [begin, end); returns the first that is out of range, or -1.
  int64_t (*random)(const PruneRandomArgs&, int64_t begin, int64_t end);
  // Entries [begin, end), begin a multiple of 8.
  void (*apply)(const PruneApplyArgs&, int64_t begin, int64_t end);
};

namespace base {
extern const PruneVariant prune_variant;
}
namespace avx2 {
extern const PruneVariant prune_variant;
}
namespace avx512 {
extern const PruneVariant prune_variant;
}

static inline int64_t prune_element_bytes(FloatFormat format) {
  return format == FloatFormat::kFloat64 ? 8 : format == FloatFormat::kFloat32 ? 4 : 2;
}

static inline uint64_t prune_key_limit(FloatFormat format, bool magnitude) {
  const uint64_t infinity = infinity_of(format);
  switch (prune_element_bytes(format)) {
    case 8: return key_limit<uint64_t>(magnitude, infinity);
    case 4: return key_limit<uint32_t>(magnitude, infinity);
    default: return key_limit<uint16_t>(magnitude, infinity);
  }
}

static inline Status prune_invalid(const char* message) {
  return Status{StatusCode::kInvalidArgument, -1, -1, message};
}

static inline bool prune_format_known(FloatFormat format) {
  return static_cast<int32_t>(format) >= 0 && static_cast<int32_t>(format) <= 3;
}

static inline Status check_prune_mask(const PruneMaskArgs& args) {
  if (!prune_format_known(args.format)) return prune_invalid("prune has no such format");
  if (static_cast<int32_t>(args.output) < 0 || static_cast<int32_t>(args.output) > 3) {
    return prune_invalid("prune has no such output");
  }
  if (args.num_segments < 0) return prune_invalid("prune needs 0 or more segments");
  int64_t total = 0;
  for (int64_t s = 0; s < args.num_segments; ++s) {
    const PruneSegment& segment = args.segments[s];
    if (segment.size < 0 || segment.size >= (int64_t{1} << 60) - total) {
      return prune_invalid("prune needs sizes of 0 or more, below 2**60 together");
    }
    if (args.output == PruneOutput::kInPlace && segment.size > 1 && segment.stride != 1) {
      return prune_invalid("prune needs contiguous segments to project in place");
    }
    total += segment.size;
  }
  if (args.keep < 0 || args.keep > total) return prune_invalid("prune needs keep in [0, number of entries]");
  return {};
}

static inline Status check_prune_pattern(const PrunePatternArgs& args) {
  if (!prune_format_known(args.format)) return prune_invalid("prune has no such format");
  if (args.outer < 0 || args.length < 0 || args.inner < 0) return prune_invalid("prune needs sizes of 0 or more");
  if (args.n < 1 || args.n > args.m || args.m > kLargestPattern) {
    return prune_invalid("prune needs a pattern with 1 <= n <= m <= 64");
  }
  return {};
}

static inline Status check_prune_random(const PruneRandomArgs& args) {
  if (!prune_format_known(args.format)) return prune_invalid("prune has no such format");
  if (args.size < 0 || args.first_element > ~uint64_t{0} - static_cast<uint64_t>(args.size)) {
    return prune_invalid("prune needs a size of 0 or more and first_element + size below 2**64");
  }
  const double width = args.high - args.low;
  if (!(width >= 0 && width <= 1.7976931348623157e308)) {
    return prune_invalid("prune needs low <= high with a finite difference");
  }
  return {};
}

static inline Status check_prune_apply(const PruneApplyArgs& args) {
  if (args.size < 0) return prune_invalid("prune needs a size of 0 or more");
  if (args.element_bytes != 2 && args.element_bytes != 4 && args.element_bytes != 8) {
    return prune_invalid("prune needs elements of 2, 4 or 8 bytes");
  }
  return {};
}

}  // namespace privkernels
