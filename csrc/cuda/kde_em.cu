// kde_em on CUDA: the launch. The arithmetic is core/'s and gives the CPU's bits (built with -fmad=false).
//
// Two kernels. The first draws by the envelope or, with fixed work, by the nodes, a thread for each element, and leaves
// -1 as the index of those that no trial accepted or that the nodes do not serve. The second draws those from the
// scores of every grid point: a block takes 32 elements; its 8 warps share the grid points of each, lane = element, so
// that the members' rows are read coalesced. Scores go to a workspace in global memory (they stay in the cache).
#include "core/chacha20.h"
#include "core/kde_draw.h"
#include "cpu/kde_em_plan.h"
#include "cuda/launch.h"

namespace privkernels {
namespace {

constexpr int kElements = 32;
constexpr int kWarps = 8;
constexpr int kThreads = 128;                            // of the first kernel
constexpr int64_t kWorkspaceFloats = int64_t{64} << 20;  // 256 MiB at most, unless one block needs more

__device__ bool members_finite(const KdeElement& in) {
  bool finite = true;
  for (int64_t i = 0; i < in.args.num_members; ++i) {
    finite = finite && magnitude(KdeElement::member(in, i)) <= kLargestFloat;
  }
  return finite;
}

// -1 is the largest unsigned number, so the minimum is the lowest failing element.
__device__ void report(unsigned long long* failure, int64_t element, bool finite) {
  atomicMin(failure, static_cast<unsigned long long>(element) * 2 + (finite ? 0 : 1));
}

__global__ void __launch_bounds__(kThreads)
    kde_em_envelope_kernel(const KdeEmArgs args, const KdeEmPlan plan, unsigned long long* failure) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t element = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; element < args.num_elements;
       element += step) {
    const KdeElement in = KdeElement::at(args, element);
    const bool usable = KdeElement::usable(in);
    const bool finite = members_finite(in);
    if (!usable || !finite) {
      report(failure, element, finite);
      args.index[element] = 0;
      continue;
    }
    float room[kNodeRoom];
    const int32_t k = kde_draw_by_envelope(in, plan.kernel, plan.envelope, plan.exponent_scale, room);
    args.index[element] = k;
    if (k >= 0) args.value[element] = grid_point(in.lo, in.hi, in.step, k);
  }
}

// The draw of one element from its scores, which lie `stride` apart.
__device__ void draw(const KdeEmArgs& args, const KdeEmPlan& plan, const KdeElement& in, float* scores,
                     int64_t stride) {
  float best = 0.0f;
  for (int64_t k = 0; k < args.grid_points; ++k) best = larger(best, scores[k * stride]);
  uint64_t total = 0;
  for (int64_t k = 0; k < args.grid_points; ++k) {
    const float exponent = (scores[k * stride] - best) * plan.exponent_scale;
    const float weight = exp2_normal(larger(exponent, -125.0f));
    scores[k * stride] = weight;
    total += integer_weight(weight, plan.two_to_bits);
  }
  const uint64_t global = args.first_element + static_cast<uint64_t>(in.element);
  uint32_t words[16];
  addressed_block(args.key, global / 8, args.attempt, kPurposeKdeEm, words);
  const uint64_t target = scale_to(element_bits(words, global), total);
  uint64_t below = 0;
  int64_t index = 0;
  for (int64_t k = 0; k < args.grid_points; ++k) {
    below += integer_weight(scores[k * stride], plan.two_to_bits);
    index += below <= target ? 1 : 0;
  }
  args.value[in.element] = grid_point(in.lo, in.hi, in.step, index);
  args.index[in.element] = static_cast<int32_t>(index);
}

// Floats of the workspace that a thread of the next kernel needs.
int64_t room_by_nodes(int64_t grid_points) {
  return grid_points + node_room(grid_points) + 2 * level_room(grid_points);
}

__global__ void __launch_bounds__(kThreads)
    kde_em_nodes_kernel(const KdeEmArgs args, const KdeEmPlan plan, float* workspace, unsigned long long* failure) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  float* scores = workspace + thread;
  float* sums = scores + args.grid_points * stride;
  float* levels = sums + node_room(args.grid_points) * stride;
  for (int64_t element = thread; element < args.num_elements; element += stride) {
    const KdeElement in = KdeElement::at(args, element);
    const bool usable = KdeElement::usable(in);
    const bool finite = members_finite(in);
    args.index[element] = usable && finite ? -1 : 0;
    float best;
    if (!usable || !finite) {
      report(failure, element, finite);
    } else if (kde_scores_by_nodes(in, plan.nodes, scores, sums, levels, stride, best)) {
      draw(args, plan, in, scores, stride);
    }
  }
}

__global__ void kde_em_scores_kernel(const KdeEmArgs args, const KdeEmPlan plan, float* workspace,
                                     unsigned long long* failure) {
  const int lane = static_cast<int>(threadIdx.x);
  const int warp = static_cast<int>(threadIdx.y);
  float* scores = workspace + (static_cast<int64_t>(blockIdx.x) * args.grid_points) * kElements + lane;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kElements; first < args.num_elements;
       first += static_cast<int64_t>(gridDim.x) * kElements) {
    const int64_t element = first + lane;
    const bool inside = element < args.num_elements;
    const bool wanted = inside && (args.scores != nullptr || args.index[element] < 0);
    if (!__syncthreads_or(wanted ? 1 : 0)) continue;
    const KdeElement in = KdeElement::at(args, inside ? element : args.num_elements - 1);
    if (wanted) {
      for (int64_t k = warp; k < args.grid_points; k += kWarps) {
        const float total = kde_score_sum(in, plan.kernel, grid_point(in.lo, in.hi, in.step, k));
        scores[k * kElements] = total;
        if (args.scores) args.scores[element * args.grid_points + k] = total * plan.score_scale;
      }
    }
    __syncthreads();
    if (wanted && warp == 0) {
      const bool finite = members_finite(in);
      if (!KdeElement::usable(in) || !finite) {
        report(failure, element, finite);
      } else if (args.value && args.index[element] < 0) {
        draw(args, plan, in, scores, kElements);
      }
    }
    __syncthreads();
  }
}

int64_t block_count(const KdeEmArgs& args, int processors) {
  const int64_t needed = (args.num_elements + kElements - 1) / kElements;
  const int64_t room = kWorkspaceFloats / (args.grid_points * kElements);
  const int64_t blocks = needed < processors * int64_t{8} ? needed : processors * int64_t{8};
  return blocks < room ? (blocks > 0 ? blocks : 1) : (room > 0 ? room : 1);
}

int64_t block_count_by_nodes(const KdeEmArgs& args, int processors) {
  const int64_t needed = (args.num_elements + kThreads - 1) / kThreads;
  const int64_t room = kWorkspaceFloats / (room_by_nodes(args.grid_points) * kThreads);
  const int64_t blocks = needed < processors * int64_t{16} ? needed : processors * int64_t{16};
  return blocks < room ? (blocks > 0 ? blocks : 1) : (room > 0 ? room : 1);
}

}  // namespace

int64_t kde_em_cuda_workspace(const KdeEmArgs& args, int device) {
  if (check_kde_em(args).code != StatusCode::kOk) return 0;
  int processors = 0;
  if (cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) return -1;
  const int64_t all = block_count(args, processors) * args.grid_points * kElements;
  const int64_t fixed =
      args.fixed_work ? block_count_by_nodes(args, processors) * kThreads * room_by_nodes(args.grid_points) : 0;
  return all > fixed ? all : fixed;
}

Status kde_em_cuda(const KdeEmArgs& args, float* workspace, int64_t* failure, int device, void* stream) {
  if (const Status status = check_kde_em(args); status.code != StatusCode::kOk) return status;
  if (args.value != nullptr && args.index == nullptr) {
    return {StatusCode::kInvalidArgument, -1, -1, "kde_em on CUDA needs room for the indices too"};
  }
  if (args.num_elements == 0) return {};
  const KdeEmPlan plan = plan_kde_em(args);
  unsigned long long* failed = reinterpret_cast<unsigned long long*>(failure);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  return launch_on(device, [&](int processors) {
    if (args.value != nullptr && args.fixed_work) {
      const unsigned blocks = static_cast<unsigned>(block_count_by_nodes(args, processors));
      kde_em_nodes_kernel<<<blocks, kThreads, 0, on>>>(args, plan, workspace, failed);
    } else if (args.value != nullptr) {
      const int64_t needed = (args.num_elements + kThreads - 1) / kThreads;
      const int64_t blocks = needed < processors * int64_t{16} ? needed : processors * int64_t{16};
      kde_em_envelope_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, on>>>(args, plan, failed);
    }
    const unsigned blocks = static_cast<unsigned>(block_count(args, processors));
    kde_em_scores_kernel<<<blocks, dim3(kElements, kWarps), 0, on>>>(args, plan, workspace, failed);
  });
}

}  // namespace privkernels
