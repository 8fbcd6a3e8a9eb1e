// The arithmetic of randomized_response.
#pragma once

#include "wide.h"

namespace privkernels {

constexpr int64_t kLargestCategories = int64_t{1} << 31;

// Without a branch on the value, the coin or the choice.
PK_HD int64_t respond(int64_t value, uint64_t coin, uint64_t choice, uint64_t threshold, int64_t categories) {
  const int64_t j = static_cast<int64_t>(scale_to(choice, static_cast<uint64_t>(categories - 1)));
  const int64_t other = j + static_cast<int64_t>(j >= value);
  const int64_t keep = -static_cast<int64_t>(coin < threshold);
  return (value & keep) | (other & ~keep);
}

}  // namespace privkernels
