// kde_em on CUDA: the launch. The arithmetic is core/'s and gives the CPU's bits (built with -fmad=false).
//
// A block takes 32 elements; its 8 warps share the grid points of each element, lane = element, so the
// members' rows are read coalesced. Scores go to a workspace in global memory (they stay in the cache).
#include "core/chacha20.h"
#include "core/kde.h"
#include "cpu/kde_em_plan.h"
#include "cuda/launch.h"

namespace privkernels {
namespace {

constexpr int kElements = 32;
constexpr int kWarps = 8;
constexpr int64_t kWorkspaceFloats = int64_t{64} << 20;  // 256 MiB at most, unless one block needs more

struct DeviceInputs {
  float lo, hi, step, inverse;
  bool usable;
};

__device__ DeviceInputs read_inputs(const KdeEmArgs& args, int64_t element) {
  DeviceInputs in;
  in.lo = args.lo[element * args.lo_stride];
  in.hi = args.hi[element * args.hi_stride];
  const float bandwidth = args.bandwidth[element * args.bandwidth_stride];
  const float range = in.hi - in.lo;
  in.step = range / static_cast<float>(args.grid_points - 1);
  in.inverse = static_cast<float>(kBaseTwo) / bandwidth;
  in.usable = range >= 0.0f && range <= kLargestFloat && magnitude(in.lo) <= kLargestFloat &&
              bandwidth >= kSmallestBandwidth && bandwidth <= kLargestBandwidth;
  return in;
}

__device__ float score(const KdeEmArgs& args, const KdeEmPlan& plan, const DeviceInputs& in, int64_t element, int64_t k,
                       bool& finite) {
  const float r = grid_point(in.lo, in.hi, in.step, k);
  float total = 0.0f;
  for (int64_t begin = 0; begin < args.num_members; begin += kMemberBlock) {
    const int64_t end = begin + kMemberBlock < args.num_members ? begin + kMemberBlock : args.num_members;
    float block = 0.0f;
    for (int64_t i = begin; i < end; ++i) {
      const float theta = args.members[i][element * args.member_strides[i]];
      finite = finite && magnitude(theta) <= kLargestFloat;
      const float x = (r - theta) * in.inverse;
      block += plan.kernel.use_series ? kde_kernel_series(x, plan.kernel) : kde_kernel_wide(x, plan.kernel);
    }
    total += block;
  }
  return total;
}

// The draw of one element from its scores, which lie kElements apart.
__device__ void draw(const KdeEmArgs& args, const KdeEmPlan& plan, const DeviceInputs& in, int64_t element,
                     float* scores) {
  float best = 0.0f;
  for (int64_t k = 0; k < args.grid_points; ++k) best = larger(best, scores[k * kElements]);
  uint64_t total = 0;
  for (int64_t k = 0; k < args.grid_points; ++k) {
    const float exponent = (scores[k * kElements] - best) * plan.exponent_scale;
    const float weight = exp2_nonpositive(larger(exponent, -125.0f));
    scores[k * kElements] = weight;
    total += integer_weight(weight, plan.two_to_bits);
  }
  const uint64_t global = args.first_element + static_cast<uint64_t>(element);
  uint32_t words[16];
  addressed_block(args.key, global / 8, args.attempt, kPurposeKdeEm, words);
  const uint64_t target = scale_to(element_bits(words, global), total);
  uint64_t below = 0;
  for (int64_t k = 0; k < args.grid_points; ++k) {
    below += integer_weight(scores[k * kElements], plan.two_to_bits);
    if (below > target) {
      args.value[element] = grid_point(in.lo, in.hi, in.step, k);
      if (args.index) args.index[element] = static_cast<int32_t>(k);
      return;
    }
  }
}

__global__ void kde_em_kernel(const KdeEmArgs args, const KdeEmPlan plan, float* workspace,
                              unsigned long long* failure) {
  const int lane = static_cast<int>(threadIdx.x);
  const int warp = static_cast<int>(threadIdx.y);
  float* scores = workspace + (static_cast<int64_t>(blockIdx.x) * args.grid_points) * kElements + lane;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kElements; first < args.num_elements;
       first += static_cast<int64_t>(gridDim.x) * kElements) {
    const int64_t element = first + lane;
    const bool inside = element < args.num_elements;
    const DeviceInputs in = read_inputs(args, inside ? element : args.num_elements - 1);
    bool finite = true;
    if (inside) {
      for (int64_t k = warp; k < args.grid_points; k += kWarps) {
        const float total = score(args, plan, in, element, k, finite);
        scores[k * kElements] = total;
        if (args.scores) args.scores[element * args.grid_points + k] = total * plan.score_scale;
      }
    }
    __syncthreads();
    if (inside && warp == 0) {
      if (!in.usable || !finite) {
        // -1 is the largest unsigned number, so the minimum is the lowest failing element.
        atomicMin(failure, static_cast<unsigned long long>(element) * 2 + (finite ? 0 : 1));
      } else if (args.value) {
        draw(args, plan, in, element, scores);
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

}  // namespace

int64_t kde_em_cuda_workspace(const KdeEmArgs& args, int device) {
  if (check_kde_em(args).code != StatusCode::kOk) return 0;
  int processors = 0;
  if (cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) return -1;
  return block_count(args, processors) * args.grid_points * kElements;
}

Status kde_em_cuda(const KdeEmArgs& args, float* workspace, int64_t* failure, int device, void* stream) {
  if (const Status status = check_kde_em(args); status.code != StatusCode::kOk) return status;
  if (args.num_elements == 0) return {};
  return launch_on(device, [&](int processors) {
    kde_em_kernel<<<static_cast<unsigned>(block_count(args, processors)), dim3(kElements, kWarps), 0,
                    static_cast<cudaStream_t>(stream)>>>(args, plan_kde_em(args), workspace,
                                                         reinterpret_cast<unsigned long long*>(failure));
  });
}

}  // namespace privkernels
