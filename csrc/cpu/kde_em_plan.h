// The checks and the constants of a kde_em call, the same for CPU and CUDA.
#pragma once

#include <cmath>

#include "kde_em_variant.h"

namespace privkernels {

static inline Status check_kde_em(const KdeEmArgs& args) {
  const auto invalid = [](const char* message) { return Status{StatusCode::kInvalidArgument, -1, -1, message}; };
  if (args.num_members < 2) return invalid("kde_em needs at least 2 members");
  if (args.format == FloatFormat::kFloat64) return invalid("kde_em takes float32, float16 and bfloat16 members");
  if (args.num_elements < 0) return invalid("kde_em needs a size of 0 or more");
  if (args.grid_points < 2 || args.grid_points > 65536) return invalid("kde_em needs 2 to 65536 grid points");
  if (!(args.window_ratio >= kSmallestWindow && args.window_ratio <= kLargestWindow)) {
    return invalid("kde_em needs a window_ratio in [1e-6, 1e6]");
  }
  if (!(args.multiplier >= 0 && args.multiplier <= 1e30)) return invalid("kde_em needs a multiplier in [0, 1e30]");
  return {};
}

static inline KdeEmPlan plan_kde_em(const KdeEmArgs& args) {
  KdeEmPlan plan{};
  plan.kernel = make_kde_kernel(args.window_ratio);
  plan.envelope = make_kde_envelope(args.window_ratio, args.num_members, args.grid_points, args.multiplier);
  plan.nodes = make_kde_nodes(args.window_ratio, args.num_members, args.grid_points);
  const double per_unit = plan.kernel.peak / static_cast<double>(args.num_members);
  plan.score_scale = static_cast<float>(per_unit);
  plan.exponent_scale = static_cast<float>(args.multiplier * per_unit * 1.4426950408889634);
  plan.two_to_bits = std::ldexp(1.0f, weight_bits(args.grid_points));
  return plan;
}

}  // namespace privkernels
