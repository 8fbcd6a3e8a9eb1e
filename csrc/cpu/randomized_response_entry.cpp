// The CPU entry point of randomized_response: checks, chooses the instruction set, splits the work over threads.
#include <new>
#include <vector>

#include "isa.h"
#include "parallel.h"
#include "randomized_response_variant.h"

namespace privkernels {
namespace {

RandomizedResponseRange variant(Isa isa) {
#if defined(PRIVKERNELS_X86)
  switch (isa) {
    case Isa::kBase: return base::randomized_response_range;
    case Isa::kAvx2: return avx2::randomized_response_range;
    case Isa::kAvx512: return avx512::randomized_response_range;
  }
#endif
  (void)isa;
  return base::randomized_response_range;
}

}  // namespace

Status randomized_response_cpu(const RandomizedResponseArgs& args, int threads) {
  if (const Status status = check_randomized_response(args); status.code != StatusCode::kOk) return status;
  if (args.num_elements == 0) return {};
  const char* reason = "";
  const Isa* isa = chosen_isa(&reason);
  if (isa == nullptr) return {StatusCode::kInvalidArgument, -1, -1, reason};
  const RandomizedResponseRange range = variant(*isa);

  constexpr int64_t kChunk = 16384;
  const int64_t chunks = (args.num_elements + kChunk - 1) / kChunk;
  const int workers = static_cast<int>(std::min<int64_t>(std::max(threads, 1), chunks));
  std::vector<int64_t> failures;
  try {
    failures.assign(static_cast<size_t>(workers), -1);
  } catch (const std::bad_alloc&) {
    return {StatusCode::kInvalidArgument, -1, -1, "randomized_response has no memory for its scratch space"};
  }
  parallel_for(chunks, workers, [&](int worker, int64_t chunk) {
    const int64_t bad = range(args, chunk * kChunk, std::min((chunk + 1) * kChunk, args.num_elements));
    // A worker's chunks ascend, so the first failure it meets is its lowest.
    int64_t& first = failures[static_cast<size_t>(worker)];
    if (bad >= 0 && first < 0) first = bad;
  });
  Status status;
  for (const int64_t bad : failures) {
    if (bad >= 0 && (status.element < 0 || bad < status.element)) {
      status = {StatusCode::kInvalidParameter, -1, bad, ""};
    }
  }
  return status;
}

}  // namespace privkernels
