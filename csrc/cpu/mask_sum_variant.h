// Between the entry point of mask_sum (mask_sum_entry.cpp) and its variants (mask_sum.cpp, once per instruction set),
// and the checks that CPU and CUDA share.
#pragma once

#include "core/chacha20.h"
#include "privkernels/mask_sum.h"

namespace privkernels {

constexpr int kMaskBlocks = 16;  // blocks of key stream that are computed together

// Elements of a tile: 256 of 32 bits or 128 of 64. Tiles begin at multiples of it in the streams.
static inline int mask_tile(bool wide) { return kMaskBlocks * (wide ? 8 : 16); }

// Elements [begin, end) of the call.
using MaskSumRange = void (*)(const MaskSumArgs&, int64_t begin, int64_t end);

namespace base {
void mask_sum_range(const MaskSumArgs&, int64_t, int64_t);
}
namespace avx2 {
void mask_sum_range(const MaskSumArgs&, int64_t, int64_t);
}
namespace avx512 {
void mask_sum_range(const MaskSumArgs&, int64_t, int64_t);
}

static inline Status check_mask_sum(const MaskSumArgs& args) {
  const auto invalid = [](const char* message) { return Status{StatusCode::kInvalidArgument, -1, -1, message}; };
  if (args.num_elements < 0 || args.num_seeds < 0) return invalid("mask_sum needs sizes of 0 or more");
  if (args.first_element > ~uint64_t{0} - static_cast<uint64_t>(args.num_elements)) {
    return invalid("mask_sum needs first_element + size below 2**64");
  }
  return {};
}

}  // namespace privkernels
