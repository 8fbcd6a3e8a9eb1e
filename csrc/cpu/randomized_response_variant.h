// Between the entry point of randomized_response (randomized_response_entry.cpp) and its variants
// (randomized_response.cpp, once per instruction set). Also the checks that CPU and CUDA share.
#pragma once

#include "core/response.h"
#include "privkernels/randomized_response.h"

namespace privkernels {

// Elements [begin, end); returns the first one out of range, or -1.
using RandomizedResponseRange = int64_t (*)(const RandomizedResponseArgs&, int64_t begin, int64_t end);

namespace base {
int64_t randomized_response_range(const RandomizedResponseArgs&, int64_t, int64_t);
}
namespace avx2 {
int64_t randomized_response_range(const RandomizedResponseArgs&, int64_t, int64_t);
}
namespace avx512 {
int64_t randomized_response_range(const RandomizedResponseArgs&, int64_t, int64_t);
}

static inline Status check_randomized_response(const RandomizedResponseArgs& args) {
  const auto invalid = [](const char* message) { return Status{StatusCode::kInvalidArgument, -1, -1, message}; };
  if (args.num_elements < 0) return invalid("randomized_response needs a size of 0 or more");
  if (args.categories < 2 || args.categories > kLargestCategories) {
    return invalid("randomized_response needs 2 to 2^31 categories");
  }
  return {};
}

}  // namespace privkernels
