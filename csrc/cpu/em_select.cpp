// em_select for one instruction set. This file is compiled once for each, in a namespace of its own
// (PK_ISA), with PK_LANES floats to a vector. No standard library here: see core/platform.h.
#include "core/chacha20.h"
#include "core/select.h"
#include "em_select_variant.h"

namespace privkernels {
namespace PK_ISA {
namespace {

constexpr int kWords = PK_LANES;        // 32-bit lanes
constexpr int kDoubles = PK_LANES / 2;  // 64-bit lanes
typedef float HalfLanes __attribute__((vector_size(PK_LANES * 2)));
static_assert(kSelectBlock % (2 * kWords) == 0, "a block holds whole tiles of every instruction set");

PK_HD DoubleLanes load(const double* from) {
  DoubleLanes value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

PK_HD DoubleLanes load(const float* from) {
  HalfLanes value;
  __builtin_memcpy(&value, from, sizeof value);
  return __builtin_convertvector(value, DoubleLanes);
}

// `count` scores, the other lanes -infinity: a weight of zero.
template <class T>
PK_HD DoubleLanes load_some(const T* from, int64_t count) {
  if (count >= kDoubles) return load(from);
  T values[kDoubles];
  for (int lane = 0; lane < kDoubles; ++lane) values[lane] = lane < count ? from[lane] : -__builtin_inf();
  return load(values);
}

PK_HD FloatLanes load_whole(const float* from) {
  FloatLanes value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

PK_HD DoubleLanes load_whole(const double* from) { return load(from); }

// In T, where comparisons give what they would in double. Two accumulators hide the latency of the comparisons.
template <class T>
SelectLargest largest_of(const T* scores, int64_t begin, int64_t end) {
  typedef decltype(load_whole(scores)) Lanes;
  typedef decltype(to_bits(Lanes{})) Bits;
  constexpr int kLanes = static_cast<int>(sizeof(Lanes) / sizeof(T));
  const T infinity = static_cast<T>(__builtin_inf());
  Lanes best[2] = {Lanes{} - infinity, Lanes{} - infinity};
  Lanes worst[2] = {Lanes{}, Lanes{}};
  Bits ordered = ~Bits{};
  int64_t i = begin;
  for (; i + 2 * kLanes <= end; i += 2 * kLanes) {
    for (int part = 0; part < 2; ++part) {
      const Lanes value = load_whole(scores + i + part * kLanes);
      best[part] = larger(value, best[part]);
      worst[part] = smaller(value, worst[part]);
      ordered &= reinterpret_cast<Bits>(value == value);
    }
  }
  const Lanes high = larger(best[0], best[1]);
  const Lanes low = smaller(worst[0], worst[1]);
  T most = -infinity, least = 0;
  bool usable = true;
  for (int lane = 0; lane < kLanes; ++lane) {
    most = larger(high[lane], most);
    least = smaller(low[lane], least);
    usable = usable & (ordered[lane] != 0);
  }
  for (; i < end; ++i) {
    most = larger(scores[i], most);
    least = smaller(scores[i], least);
    usable = usable & (scores[i] == scores[i]);
  }
  usable = usable & (static_cast<double>(most) <= kLargestScore) & (static_cast<double>(least) >= -kLargestScore);
  return {static_cast<double>(most), usable};
}

PK_HD Wide sum_of(WordLanes high, WordLanes low) {
  uint64_t high_sum = 0, low_sum = 0;
  for (int lane = 0; lane < kDoubles; ++lane) high_sum += high[lane], low_sum += low[lane];
  return wide_weight(high_sum, low_sum);
}

template <class T>
void totals_of(const T* scores, const SelectScores& segment, int64_t first, int64_t last, Wide* totals) {
  for (int64_t block = first; block < last; ++block) {
    const T* from = scores + block * kSelectBlock;
    const int64_t left = segment.count - block * kSelectBlock;
    const int64_t count = left < kSelectBlock ? left : kSelectBlock;
    WordLanes high{}, low{};
    int64_t i = 0;
    for (; i + kDoubles <= count; i += kDoubles) {
      const auto weight = integer_weight_of(load(from + i), segment.largest, segment.scale);
      high += weight.high, low += weight.low;
    }
    if (i < count) {
      const auto weight = integer_weight_of(load_some(from + i, count - i), segment.largest, segment.scale);
      high += weight.high, low += weight.low;
    }
    totals[block] = sum_of(high, low);
  }
}

// The limbs of the weights of `tile` candidates from `from`; those past `count` are zero.
template <class T>
PK_HD void weigh(const T* from, int64_t count, int tile, const SelectScores& segment, uint64_t* high, uint64_t* low) {
  for (int i = 0; i < tile; i += kDoubles) {
    const DoubleLanes score = i < count ? load_some(from + i, count - i) : DoubleLanes{} - __builtin_inf();
    const auto weight = integer_weight_of(score, segment.largest, segment.scale);
    __builtin_memcpy(high + i, &weight.high, sizeof weight.high);
    __builtin_memcpy(low + i, &weight.low, sizeof weight.low);
  }
}

// Which of `count` totals holds the target; subtracts those before it from the target. Looks at all of them.
PK_HD int64_t holder(const Wide* totals, int count, Wide& target) {
  Wide cumulative = 0, before = 0;
  int64_t index = 0;
  for (int i = 0; i < count; ++i) {
    cumulative += totals[i];
    const Wide passed = -static_cast<Wide>(cumulative <= target);
    before = (cumulative & passed) | (before & ~passed);
    index += static_cast<int64_t>(passed & 1);
  }
  target -= before;
  return index;
}

// First the group of kGroup candidates that holds the target, then the candidate.
template <class T>
int64_t locate_in(const T* scores, const SelectScores& segment, int64_t block, Wide target) {
  constexpr int kGroup = 16;
  constexpr int kGroups = static_cast<int>(kSelectBlock) / kGroup;
  uint64_t high[kSelectBlock], low[kSelectBlock];
  const int64_t begin = block * kSelectBlock;
  // A segment shorter than a block needs no more groups than its own length.
  const int groups = segment.count < kSelectBlock ? static_cast<int>((segment.count + kGroup - 1) / kGroup) : kGroups;
  weigh(scores + begin, segment.count - begin, groups * kGroup, segment, high, low);
  Wide totals[kGroups], weights[kGroup];
  for (int group = 0; group < groups; ++group) {
    uint64_t high_sum = 0, low_sum = 0;
    for (int i = group * kGroup; i < (group + 1) * kGroup; ++i) high_sum += high[i], low_sum += low[i];
    totals[group] = wide_weight(high_sum, low_sum);
  }
  const int64_t first = holder(totals, groups, target) * kGroup;
  for (int i = 0; i < kGroup; ++i) weights[i] = wide_weight(high[first + i], low[first + i]);
  return begin + first + holder(weights, kGroup, target);
}

template <class T>
Accepted permute_in(const T* scores, const SelectScores& segment, int64_t first, int64_t last,
                    const SelectAddress& address) {
  constexpr int kTile = 2 * kWords;  // a lane is a ChaCha20 block, which serves two candidates
  Accepted best = none_accepted();
  const int64_t end = last * kSelectBlock < segment.count ? last * kSelectBlock : segment.count;
  for (int64_t begin = first * kSelectBlock; begin < end; begin += kTile) {
    uint32_t pairs[kWords];
    for (int lane = 0; lane < kWords; ++lane) pairs[lane] = static_cast<uint32_t>(begin / 2 + lane);
    BitLanes counter[4] = {BitLanes{}, BitLanes{} + address.segment, BitLanes{} + address.peel,
                           BitLanes{} + uint32_t{kPurposePermuteAndFlip}};
    BitLanes words[16];
    __builtin_memcpy(counter, pairs, sizeof pairs);
    chacha20_block(address.key, counter, words);
    uint64_t high[kTile], low[kTile];
    weigh(scores + begin, segment.count - begin, kTile, segment, high, low);
    uint32_t stored[16 * kWords];
    __builtin_memcpy(stored, words, sizeof stored);
    for (int i = 0; i < kTile; ++i) {
      const Flip flip = flip_of(stored + 8 * (i % 2) * kWords + i / 2, kWords);
      consider(best, flip, high[i], low[i], begin + i);
    }
  }
  return best;
}

SelectLargest largest(const SelectScores& segment, int64_t begin, int64_t end) {
  return segment.is_double ? largest_of(static_cast<const double*>(segment.at), begin, end)
                           : largest_of(static_cast<const float*>(segment.at), begin, end);
}

void totals(const SelectScores& segment, int64_t first, int64_t last, Wide* out) {
  if (segment.is_double) {
    totals_of(static_cast<const double*>(segment.at), segment, first, last, out);
  } else {
    totals_of(static_cast<const float*>(segment.at), segment, first, last, out);
  }
}

int64_t locate(const SelectScores& segment, int64_t block, Wide target) {
  return segment.is_double ? locate_in(static_cast<const double*>(segment.at), segment, block, target)
                           : locate_in(static_cast<const float*>(segment.at), segment, block, target);
}

Accepted permute(const SelectScores& segment, int64_t first, int64_t last, const SelectAddress& address) {
  return segment.is_double ? permute_in(static_cast<const double*>(segment.at), segment, first, last, address)
                           : permute_in(static_cast<const float*>(segment.at), segment, first, last, address);
}

}  // namespace

EmSelectVariant em_select_variant() { return {largest, totals, locate, permute}; }

}  // namespace PK_ISA
}  // namespace privkernels
