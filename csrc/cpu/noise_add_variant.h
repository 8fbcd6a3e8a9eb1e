// Between the entry point of noise_add (noise_add_entry.cpp) and its variants (noise_add.cpp, once per instruction
// set), and the checks that CPU and CUDA share.
#pragma once

#include "core/noise.h"
#include "privkernels/noise_add.h"

namespace privkernels {

// Elements [begin, end) of the call. Returns the first that is not finite, or -1.
using NoiseAddRange = int64_t (*)(const NoiseAddArgs&, int64_t begin, int64_t end);

namespace base {
int64_t noise_add_range(const NoiseAddArgs&, int64_t, int64_t);
}
namespace avx2 {
int64_t noise_add_range(const NoiseAddArgs&, int64_t, int64_t);
}
namespace avx512 {
int64_t noise_add_range(const NoiseAddArgs&, int64_t, int64_t);
}

static inline Status check_noise_add(const NoiseAddArgs& args) {
  const auto invalid = [](const char* message) { return Status{StatusCode::kInvalidArgument, -1, -1, message}; };
  if (args.num_elements < 0) return invalid("noise_add needs a size of 0 or more");
  if (args.first_element > ~uint64_t{0} - static_cast<uint64_t>(args.num_elements)) {
    return invalid("noise_add needs first_element + size below 2**64");
  }
  if (args.exponent < -100 || args.exponent > 100) return invalid("noise_add needs a granularity in [2**-100, 2**100]");
  if (args.format == FloatFormat::kFloat64) return invalid("noise_add takes float32, float16 and bfloat16");
  if ((args.input == nullptr) != (args.output == nullptr)) return invalid("noise_add needs an output for its input");
  return check_noise_tables(args.tables, args.num_tables);
}

}  // namespace privkernels
