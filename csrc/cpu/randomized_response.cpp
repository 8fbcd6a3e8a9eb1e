// randomized_response for one instruction set. This file is compiled once for each, in a namespace of its own
// (PK_ISA), with PK_LANES words to a vector. No standard library here: see core/platform.h.
#include "core/chacha20.h"
#include "core/lanes.h"
#include "core/response.h"
#include "randomized_response_variant.h"

namespace privkernels {
namespace PK_ISA {
namespace {

constexpr int kLanes = PK_LANES;  // ChaCha20 blocks at once, of eight elements each

// The blocks first .. first + kLanes - 1, word i of lane l at words[i * kLanes + l].
PK_HD void blocks_from(const uint32_t* key, uint64_t first, uint32_t attempt, uint32_t* words) {
  uint32_t low[kLanes], high[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint64_t block = first + static_cast<uint64_t>(lane);
    low[lane] = static_cast<uint32_t>(block), high[lane] = static_cast<uint32_t>(block >> 32);
  }
  BitLanes counter[4] = {BitLanes{}, BitLanes{}, BitLanes{} + attempt,
                         BitLanes{} + uint32_t{kPurposeRandomizedResponse}};
  BitLanes out[16];
  __builtin_memcpy(&counter[0], low, sizeof low);
  __builtin_memcpy(&counter[1], high, sizeof high);
  chacha20_block(key, counter, out);
  __builtin_memcpy(words, out, sizeof out);
}

PK_HD uint64_t bits_of(const uint32_t* words, uint64_t element) {
  const uint64_t lane = element / 8, word = element % 8 * 2;
  return static_cast<uint64_t>(words[word * kLanes + lane]) |
         (static_cast<uint64_t>(words[(word + 1) * kLanes + lane]) << 32);
}

}  // namespace

int64_t randomized_response_range(const RandomizedResponseArgs& args, int64_t begin, int64_t end) {
  uint32_t coins[16 * kLanes], choices[16 * kLanes];
  int64_t failure = -1;
  for (int64_t first = begin; first < end;) {
    const uint64_t block = (args.first_element + static_cast<uint64_t>(first)) / 8;
    const uint64_t offset = args.first_element + static_cast<uint64_t>(first) - 8 * block;
    const int64_t room = 8 * kLanes - static_cast<int64_t>(offset);
    const int64_t count = end - first < room ? end - first : room;
    blocks_from(args.key, block, 0, coins);
    blocks_from(args.key, block, 1, choices);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t value = args.values[(first + i) * args.stride];
      if (value < 0 || value >= args.categories) {
        failure = failure < 0 ? first + i : failure;
      }
      const uint64_t element = offset + static_cast<uint64_t>(i);
      args.out[first + i] =
          respond(value, bits_of(coins, element), bits_of(choices, element), args.threshold, args.categories);
    }
    first += count;
  }
  return failure;
}

}  // namespace PK_ISA
}  // namespace privkernels
