// mask_sum on the CPU. Compiled once for each instruction set, in a namespace of its own, and without the standard
// library: an inline function compiled here with wide instructions could otherwise be the one that the linker keeps
// for all of them.
//
// A vector holds one word of several blocks. The sums over seeds are kept in this layout, so that the words are brought
// into the stream's order once for all seeds.
#include <cstddef>

#include "core/chacha20.h"
#include "mask_sum_variant.h"

namespace privkernels {
namespace PK_ISA {
namespace {

typedef uint64_t WideLanes __attribute__((vector_size(PK_LANES * 4)));

// Where the sums over seeds of PK_LANES blocks are kept: word w of every block, or 64-bit word w of the even and of
// the odd ones.
struct Narrow {
  typedef uint32_t Word;
  static constexpr int kWords = 16;
  BitLanes sums[16] = {};

  void add(const BitLanes* words, bool negative) {
    if (negative) {
      for (int w = 0; w < 16; ++w) sums[w] -= words[w];
    } else {
      for (int w = 0; w < 16; ++w) sums[w] += words[w];
    }
  }
  // out [PK_LANES, 16]
  void store(uint32_t* out) const {
    uint32_t columns[16][PK_LANES];
    __builtin_memcpy(columns, sums, sizeof columns);
    for (int lane = 0; lane < PK_LANES; ++lane) {
      for (int w = 0; w < 16; ++w) out[lane * 16 + w] = columns[w][lane];
    }
  }
};

struct Wide {
  typedef uint64_t Word;
  static constexpr int kWords = 8;
  WideLanes even[8] = {}, odd[8] = {};

  void add(const BitLanes* words, bool negative) {
    const WideLanes lower = WideLanes{} + 0xffffffffu;
    for (int w = 0; w < 8; ++w) {
      const WideLanes low = reinterpret_cast<WideLanes>(words[2 * w]);
      const WideLanes high = reinterpret_cast<WideLanes>(words[2 * w + 1]);
      const WideLanes even_word = (low & lower) | (high << 32), odd_word = (low >> 32) | (high & ~lower);
      even[w] = negative ? even[w] - even_word : even[w] + even_word;
      odd[w] = negative ? odd[w] - odd_word : odd[w] + odd_word;
    }
  }
  // out [PK_LANES, 8]
  void store(uint64_t* out) const {
    uint64_t columns[2][8][PK_LANES / 2];
    __builtin_memcpy(columns[0], even, sizeof columns[0]);
    __builtin_memcpy(columns[1], odd, sizeof columns[1]);
    for (int lane = 0; lane < PK_LANES; ++lane) {
      for (int w = 0; w < 8; ++w) out[lane * 8 + w] = columns[lane % 2][w][lane / 2];
    }
  }
};

#if PK_LANES == 16
// The same blocks of two seeds, one operation of each in turn: where the words of one seed take half of the registers,
// there is room for two, and none waits for the result before it. Smaller register files do not hold two.
struct SeedPair {
  BitLanes first, second;
};
struct KeyPair {
  uint32_t first, second;
};
PK_HD SeedPair operator+(SeedPair a, SeedPair b) { return {a.first + b.first, a.second + b.second}; }
PK_HD SeedPair operator+(SeedPair a, KeyPair b) { return {a.first + b.first, a.second + b.second}; }
PK_HD SeedPair operator+(SeedPair a, uint32_t b) { return {a.first + b, a.second + b}; }
PK_HD SeedPair operator^(SeedPair a, SeedPair b) { return {a.first ^ b.first, a.second ^ b.second}; }
PK_HD SeedPair& operator+=(SeedPair& a, SeedPair b) { return a = a + b; }
PK_HD SeedPair rotate_left(SeedPair a, int count) {
  return {privkernels::rotate_left(a.first, count), privkernels::rotate_left(a.second, count)};
}

// Adds the masks of as many pairs of seeds as there are; returns the first seed that is left over.
template <class Sums>
int64_t sum_pairs(const MaskSumArgs& args, const BitLanes* address, Sums& sums) {
  SeedPair addresses[4], words[16];
  for (int i = 0; i < 4; ++i) addresses[i] = {address[i], address[i]};
  int64_t seed = 0;
  for (; seed + 2 <= args.num_seeds; seed += 2) {
    uint32_t keys[16];
    __builtin_memcpy(keys, args.seeds + 32 * seed, sizeof keys);  // x86-64 is little-endian
    KeyPair key[8];
    for (int i = 0; i < 8; ++i) key[i] = {keys[i], keys[8 + i]};
    chacha20_block(key, addresses, words);
    BitLanes each[16];
    for (int w = 0; w < 16; ++w) each[w] = words[w].first;
    sums.add(each, args.signs[seed] < 0);
    for (int w = 0; w < 16; ++w) each[w] = words[w].second;
    sums.add(each, args.signs[seed + 1] < 0);
  }
  return seed;
}
#else
template <class Sums>
int64_t sum_pairs(const MaskSumArgs&, const BitLanes*, Sums&) {
  return 0;
}
#endif

// The sums over all seeds of the PK_LANES blocks from `block`, a multiple of PK_LANES.
template <class Sums>
void sum_blocks(const MaskSumArgs& args, uint64_t block, typename Sums::Word* out) {
  uint32_t numbers[PK_LANES];
  for (int i = 0; i < PK_LANES; ++i) numbers[i] = static_cast<uint32_t>(block) + static_cast<uint32_t>(i);
  BitLanes address[4], words[16];
  __builtin_memcpy(&address[0], numbers, sizeof numbers);
  address[1] = BitLanes{} + static_cast<uint32_t>(block >> 32);  // the low half carries nowhere within a tile
  address[2] = BitLanes{} + args.round;
  address[3] = BitLanes{} + static_cast<uint32_t>(kPurposeMaskSum);
  Sums sums;
  for (int64_t seed = sum_pairs(args, address, sums); seed < args.num_seeds; ++seed) {
    uint32_t key[8];
    __builtin_memcpy(key, args.seeds + 32 * seed, sizeof key);  // x86-64 and AArch64 are little-endian
    chacha20_block(key, address, words);
    sums.add(words, args.signs[seed] < 0);
  }
  sums.store(out);
}

template <class Sums>
void sum_range(const MaskSumArgs& args, int64_t begin, int64_t end) {
  typedef typename Sums::Word Word;
  constexpr int kTile = kMaskBlocks * Sums::kWords;
  Word* values = static_cast<Word*>(args.values);
  for (int64_t at = begin; at < end;) {
    const uint64_t element = args.first_element + static_cast<uint64_t>(at);
    const int skipped = static_cast<int>(element % kTile);
    const int64_t room = kTile - skipped;
    const int count = static_cast<int>(end - at < room ? end - at : room);
    Word masks[kTile];
    for (int lane = 0; lane < kMaskBlocks; lane += PK_LANES) {
      if ((lane + PK_LANES) * Sums::kWords <= skipped || lane * Sums::kWords >= skipped + count) continue;
      sum_blocks<Sums>(args, element / kTile * kMaskBlocks + static_cast<uint64_t>(lane), masks + lane * Sums::kWords);
    }
    for (int i = 0; i < count; ++i) values[at + i] += masks[skipped + i];
    at += count;
  }
}

}  // namespace

void mask_sum_range(const MaskSumArgs& args, int64_t begin, int64_t end) {
  if (args.wide) return sum_range<Wide>(args, begin, end);
  sum_range<Narrow>(args, begin, end);
}

}  // namespace PK_ISA
}  // namespace privkernels
