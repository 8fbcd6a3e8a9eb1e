// randomized_response on CUDA: the launch. A thread takes one ChaCha20 block's eight elements.
#include "core/chacha20.h"
#include "core/response.h"
#include "cpu/randomized_response_variant.h"
#include "cuda/launch.h"

namespace privkernels {
namespace {

constexpr unsigned kThreads = 256;

__global__ void randomized_response_kernel(const RandomizedResponseArgs args, unsigned long long* failure) {
  const uint64_t end = args.first_element + static_cast<uint64_t>(args.num_elements);
  const uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  uint64_t block = args.first_element / 8 + static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; 8 * block < end; block += step) {
    uint32_t coins[16], choices[16];
    addressed_block(args.key, block, 0, kPurposeRandomizedResponse, coins);
    addressed_block(args.key, block, 1, kPurposeRandomizedResponse, choices);
    for (uint64_t element = 8 * block; element < 8 * block + 8; ++element) {
      if (element < args.first_element || element >= end) continue;
      const int64_t own = static_cast<int64_t>(element - args.first_element);
      const int64_t value = args.values[own * args.stride];
      // -1 is the largest unsigned number, so the minimum is the lowest failing element.
      if (value < 0 || value >= args.categories) atomicMin(failure, static_cast<unsigned long long>(own));
      args.out[own] =
          respond(value, element_bits(coins, element), element_bits(choices, element), args.threshold, args.categories);
    }
  }
}

}  // namespace

Status randomized_response_cuda(const RandomizedResponseArgs& args, int64_t* failure, int device, void* stream) {
  if (const Status status = check_randomized_response(args); status.code != StatusCode::kOk) return status;
  if (args.num_elements == 0) return {};
  return launch_on(device, [&](int processors) {
    const int64_t needed = args.num_elements / (8 * int64_t{kThreads}) + 1;
    const int64_t most = processors * int64_t{16};
    randomized_response_kernel<<<static_cast<unsigned>(needed < most ? needed : most), kThreads, 0,
                                 static_cast<cudaStream_t>(stream)>>>(args,
                                                                      reinterpret_cast<unsigned long long*>(failure));
  });
}

}  // namespace privkernels
