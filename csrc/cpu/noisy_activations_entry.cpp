// The CPU entry point of noisy_activations: checks, chooses the instruction set, splits the work over threads.
#include <new>
#include <vector>

#include "isa.h"
#include "noisy_activations_variant.h"
#include "parallel.h"

namespace privkernels {
namespace {

NoisyActivationsVariant variant_of(Isa isa) {
#if defined(PRIVKERNELS_X86)
  switch (isa) {
    case Isa::kBase: return base::noisy_activations_variant();
    case Isa::kAvx2: return avx2::noisy_activations_variant();
    case Isa::kAvx512: return avx512::noisy_activations_variant();
  }
#endif
  (void)isa;
  return base::noisy_activations_variant();
}

// One call: its workers and their memory.
class Run {
 public:
  Run(const NoisyActivationsArgs& args, const NoisyActivationsVariant& variant, int threads)
      : args_(args),
        variant_(variant),
        tiles_(args.batch * activation_tiles(args)),
        workers_(static_cast<int>(std::min<int64_t>(std::max(threads, 1), tiles_))),
        room_(static_cast<size_t>(activation_scratch_rows(args) * kActivationRow)) {
    scratch_.resize(room_ * static_cast<size_t>(workers_));
    failures_.assign(static_cast<size_t>(workers_), -1);
    if (args.clip_kind != ActivationClip::kNorm) return;
    squares_.resize(static_cast<size_t>(tiles_));
    if (args.grad != nullptr) products_.resize(static_cast<size_t>(tiles_));
  }

  Status run() {
    if (!squares_.empty()) {
      each([&](int64_t number, const ActivationTile& tile, double* scratch, int) {
        squares_[static_cast<size_t>(number)] = variant_.squares(args_, tile, scratch);
      });
    }
    return args_.grad != nullptr ? backward() : forward();
  }

 private:
  template <class Body>
  void each(const Body& body) {
    parallel_for(tiles_, workers_, [&](int worker, int64_t number) {
      body(number, activation_tile(args_, number), scratch_.data() + room_ * static_cast<size_t>(worker), worker);
    });
  }

  Status forward() {
    each([&](int64_t, ActivationTile tile, double* scratch, int worker) {
      if (!squares_.empty()) set_scale(args_, squares_.data(), tile);
      const int64_t failure = variant_.forward(args_, tile, scratch);
      int64_t& first = failures_[static_cast<size_t>(worker)];
      if (failure >= 0 && (first < 0 || failure < first)) first = failure;
    });
    Status status;
    for (const int64_t failure : failures_) {
      if (failure < 0 || (status.element >= 0 && status.element <= failure)) continue;
      status.element = failure;
      status.code = StatusCode::kNonFinite;
    }
    return status;
  }

  Status backward() {
    if (!products_.empty()) {
      each([&](int64_t number, ActivationTile tile, double* scratch, int) {
        set_scale(args_, squares_.data(), tile);
        products_[static_cast<size_t>(number)] = variant_.products(args_, tile, scratch);
      });
    }
    each([&](int64_t, ActivationTile tile, double* scratch, int) {
      if (!squares_.empty()) {
        set_scale(args_, squares_.data(), tile);
        set_along(args_, products_.data(), tile);
      }
      variant_.backward(args_, tile, scratch);
    });
    return {};
  }

  const NoisyActivationsArgs& args_;
  const NoisyActivationsVariant& variant_;
  const int64_t tiles_;
  const int workers_;
  const size_t room_;  // doubles of a worker
  std::vector<double> scratch_, squares_, products_;
  std::vector<int64_t> failures_;
};

}  // namespace

Status noisy_activations_cpu(const NoisyActivationsArgs& args, int threads) {
  if (const Status status = check_noisy_activations(args); status.code != StatusCode::kOk) return status;
  if (args.batch == 0 || args.channels == 0 || args.positions == 0) return {};
  const char* reason = "";
  const Isa* isa = chosen_isa(&reason);
  if (isa == nullptr) return {StatusCode::kInvalidArgument, -1, -1, reason};
  const NoisyActivationsVariant variant = variant_of(*isa);
  try {
    return Run(args, variant, threads).run();
  } catch (const std::bad_alloc&) {
    return {StatusCode::kInvalidArgument, -1, -1, "noisy_activations has no memory for its scratch space"};
  }
}

}  // namespace privkernels
