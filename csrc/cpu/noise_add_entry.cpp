// The CPU entry point of noise_add: checks, chooses the instruction set, splits the work over threads.
#include <new>
#include <vector>

#include "isa.h"
#include "noise_add_variant.h"
#include "parallel.h"

namespace privkernels {
namespace {

NoiseAddRange variant(Isa isa) {
#if defined(PRIVKERNELS_X86)
  switch (isa) {
    case Isa::kBase: return base::noise_add_range;
    case Isa::kAvx2: return avx2::noise_add_range;
    case Isa::kAvx512: return avx512::noise_add_range;
  }
#endif
  (void)isa;
  return base::noise_add_range;
}

}  // namespace

Status noise_add_cpu(const NoiseAddArgs& args, int threads) {
  if (const Status status = check_noise_add(args); status.code != StatusCode::kOk) return status;
  if (args.num_elements == 0) return {};
  const char* reason = "";
  const Isa* isa = chosen_isa(&reason);
  if (isa == nullptr) return {StatusCode::kInvalidArgument, -1, -1, reason};
  const NoiseAddRange range = variant(*isa);

  // Chunks begin where groups of elements begin, so that no block of random bits is computed twice.
  constexpr int64_t kChunk = 128 * kSpreadGroup;
  const int64_t skipped = static_cast<int64_t>(args.first_element % kSpreadGroup);
  const int64_t chunks = (args.num_elements + skipped + kChunk - 1) / kChunk;
  const int workers = static_cast<int>(std::min<int64_t>(std::max(threads, 1), chunks));
  std::vector<int64_t> failures;
  try {
    failures.assign(static_cast<size_t>(workers), -1);
  } catch (const std::bad_alloc&) {
    return {StatusCode::kInvalidArgument, -1, -1, "noise_add has no memory for its scratch space"};
  }

  parallel_for(chunks, workers, [&](int worker, int64_t chunk) {
    const int64_t begin = std::max<int64_t>(chunk * kChunk - skipped, 0);
    const int64_t end = std::min((chunk + 1) * kChunk - skipped, args.num_elements);
    const int64_t failure = range(args, begin, end);
    // A worker's chunks ascend, so the first failure it meets is its lowest.
    int64_t& first = failures[static_cast<size_t>(worker)];
    if (first < 0) first = failure;
  });

  Status status;
  for (const int64_t failure : failures) {
    if (failure < 0 || (status.element >= 0 && status.element <= failure)) continue;
    status.element = failure;
    status.code = StatusCode::kNonFinite;
  }
  return status;
}

}  // namespace privkernels
