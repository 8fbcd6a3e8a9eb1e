// Between the entry point of kde_em (kde_em_entry.cpp) and its variants (kde_em.cpp, once per instruction set).
#pragma once

#include "core/chacha20.h"
#include "core/kde_envelope.h"
#include "core/kde_nodes.h"
#include "privkernels/kde_em.h"

namespace privkernels {

// What is the same for every element of a call.
struct KdeEmPlan {
  KdeKernel kernel;
  KdeEnvelope envelope;
  KdeNodes nodes;
  float exponent_scale;  // log2 of a weight per unit of the sum of K / w_max
  float score_scale;     // u per unit of that sum
  float two_to_bits;     // 2^weight_bits(R)
};

// The first element that could not be used; member is -1 when lo, hi or bandwidth is at fault.
struct KdeEmFailure {
  int64_t element = -1;
  int64_t member = -1;
};

// Elements that are read at once: whole groups that share the blocks of their first trial (core/chacha20.h).
constexpr int kKdeEmTile = 2 * kSpreadGroup;

// Grid points that a draw from all scores takes together.
constexpr int kDrawBlock = 16;
static inline int64_t draw_blocks(int64_t grid_points) { return (grid_points + kDrawBlock - 1) / kDrawBlock; }

// Floats of scratch space: tiles are as wide as a group of draws (core/chacha20.h), vectors at most kMaxLanes.
static inline int64_t kde_em_scratch(const KdeEmArgs& args) {
  constexpr int64_t kTile = kKdeEmTile, kMaxLanes = 16, kAlign = 32;
  const int64_t fixed = args.fixed_work ? node_room(args.grid_points) + 2 * level_room(args.grid_points) : 0;
  return kAlign + args.num_members * (kTile + kMaxLanes) + kNodeRoom * kTile +
         (4 * args.num_members + draw_blocks(args.grid_points) * (kDrawBlock + 2) + fixed) * kMaxLanes;
}

// Elements [begin, end). scratch: float [kde_em_scratch], of any alignment.
using KdeEmRange = void (*)(const KdeEmArgs&, const KdeEmPlan&, int64_t begin, int64_t end, float* scratch,
                            KdeEmFailure&);

namespace base {
void kde_em_range(const KdeEmArgs&, const KdeEmPlan&, int64_t, int64_t, float*, KdeEmFailure&);
}
namespace avx2 {
void kde_em_range(const KdeEmArgs&, const KdeEmPlan&, int64_t, int64_t, float*, KdeEmFailure&);
}
namespace avx512 {
void kde_em_range(const KdeEmArgs&, const KdeEmPlan&, int64_t, int64_t, float*, KdeEmFailure&);
}

}  // namespace privkernels
