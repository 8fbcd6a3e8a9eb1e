// The CPU entry point of kde_em: checks, chooses the instruction set, splits the work over threads.
#include <memory>
#include <new>
#include <vector>

#include "isa.h"
#include "kde_em_plan.h"
#include "parallel.h"

namespace privkernels {
namespace {

KdeEmRange variant(Isa isa) {
#if defined(PRIVKERNELS_X86)
  switch (isa) {
    case Isa::kBase: return base::kde_em_range;
    case Isa::kAvx2: return avx2::kde_em_range;
    case Isa::kAvx512: return avx512::kde_em_range;
  }
#endif
  (void)isa;
  return base::kde_em_range;
}

}  // namespace

Status kde_em_cpu(const KdeEmArgs& args, int threads) {
  if (const Status status = check_kde_em(args); status.code != StatusCode::kOk) return status;
  if (args.num_elements == 0) return {};
  const char* reason = "";
  const Isa* isa = chosen_isa(&reason);
  if (isa == nullptr) return {StatusCode::kInvalidArgument, -1, -1, reason};
  const KdeEmPlan plan = plan_kde_em(args);
  const KdeEmRange range = variant(*isa);

  constexpr int64_t kChunk = 1024;  // a multiple of every lane count
  const int64_t chunks = (args.num_elements + kChunk - 1) / kChunk;
  const size_t scratch_size = static_cast<size_t>(kde_em_scratch(args));
  const int workers = static_cast<int>(std::min<int64_t>(std::max(threads, 1), chunks));
  std::vector<std::unique_ptr<float[]>> scratch;  // not set to zero: with many grid points that would take long
  std::vector<KdeEmFailure> failures;
  try {
    failures.resize(static_cast<size_t>(workers));
    for (int worker = 0; worker < workers; ++worker) scratch.emplace_back(new float[scratch_size]);
  } catch (const std::bad_alloc&) {
    return {StatusCode::kInvalidArgument, -1, -1, "kde_em has no memory for its scratch space"};
  }

  parallel_for(chunks, workers, [&](int worker, int64_t chunk) {
    KdeEmFailure failure;
    const int64_t end = std::min((chunk + 1) * kChunk, args.num_elements);
    range(args, plan, chunk * kChunk, end, scratch[static_cast<size_t>(worker)].get(), failure);
    // A worker's chunks ascend, so the first failure it meets is its lowest.
    KdeEmFailure& first = failures[static_cast<size_t>(worker)];
    if (failure.element >= 0 && first.element < 0) first = failure;
  });

  Status status;
  for (const KdeEmFailure& failure : failures) {
    if (failure.element < 0 || (status.element >= 0 && status.element <= failure.element)) continue;
    status.element = failure.element;
    status.member = failure.member;
    status.code = failure.member < 0 ? StatusCode::kInvalidParameter : StatusCode::kNonFinite;
  }
  return status;
}

}  // namespace privkernels
