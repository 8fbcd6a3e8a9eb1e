// The CPU entry point of mask_sum: checks, chooses the instruction set, splits the work over threads.
#include "isa.h"
#include "mask_sum_variant.h"
#include "parallel.h"

namespace privkernels {
namespace {

MaskSumRange variant(Isa isa) {
#if defined(PRIVKERNELS_X86)
  switch (isa) {
    case Isa::kBase: return base::mask_sum_range;
    case Isa::kAvx2: return avx2::mask_sum_range;
    case Isa::kAvx512: return avx512::mask_sum_range;
  }
#endif
  (void)isa;
  return base::mask_sum_range;
}

}  // namespace

Status mask_sum_cpu(const MaskSumArgs& args, int threads) {
  if (const Status status = check_mask_sum(args); status.code != StatusCode::kOk) return status;
  for (int64_t seed = 0; seed < args.num_seeds; ++seed) {
    if (args.signs[seed] != 1 && args.signs[seed] != -1) {
      return {StatusCode::kInvalidParameter, -1, seed, "mask_sum needs signs of 1 or -1"};
    }
  }
  if (args.num_elements == 0 || args.num_seeds == 0) return {};
  const char* reason = "";
  const Isa* isa = chosen_isa(&reason);
  if (isa == nullptr) return {StatusCode::kInvalidArgument, -1, -1, reason};
  const MaskSumRange range = variant(*isa);

  // Chunks begin where tiles begin, and are about a tenth of a millisecond of work.
  constexpr int64_t kWork = 512;  // tiles times seeds
  const int64_t tile = mask_tile(args.wide);
  const int64_t chunk = tile * std::max<int64_t>(kWork / args.num_seeds, 1);
  const int64_t skipped = static_cast<int64_t>(args.first_element % static_cast<uint64_t>(tile));
  const int64_t chunks = (args.num_elements - 1 + skipped) / chunk + 1;
  parallel_for(chunks, threads, [&](int, int64_t index) {
    const int64_t begin = std::max<int64_t>(index * chunk - skipped, 0);
    const int64_t end = index == chunks - 1 ? args.num_elements : (index + 1) * chunk - skipped;
    range(args, begin, end);
  });
  return {};
}

}  // namespace privkernels
