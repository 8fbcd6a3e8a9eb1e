// Between the entry point of noise_add (noise_add_entry.cpp) and its variants (noise_add.cpp, once per instruction
// set), and the checks that CPU and CUDA share.
#pragma once

#include "core/chacha20.h"
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
  if (args.num_tables < 1 || args.num_tables > kMaxNoiseTables) return invalid("noise_add needs 1 to 8 tables");
  if ((args.input == nullptr) != (args.output == nullptr)) return invalid("noise_add needs an output for its input");
  int64_t largest = 0;
  for (int t = 0; t < args.num_tables; ++t) {
    const NoiseTable& table = args.tables[t];
    if (table.index_bits < 1 || table.index_bits > 14) return invalid("noise_add needs tables of 2 to 16384 entries");
    if (table.multiplier < 1 || table.multiplier > (int64_t{1} << 40)) {
      return invalid("noise_add needs multipliers in [1, 2**40]");
    }
    largest += table.multiplier * ((int64_t{1} << table.index_bits) - 1);
  }
  if (largest >= int64_t{1} << 49) return invalid("noise_add needs noise below 2**49 steps");
  return {};
}

}  // namespace privkernels
