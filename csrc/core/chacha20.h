// ChaCha20 (RFC 8439), addressed rather than advanced.
//
// The block function is the RFC's. Its 128-bit counter and nonce are filled with an address, so that
// every draw is a function of (key, element, attempt, purpose) and of nothing else:
//
//   word 12  low 32 bits of the block number      word 14  attempt (or draw, below)
//   word 13  high 32 bits of the block number     word 15  purpose (which kernel draws)
//
// A block holds eight 64-bit draws. There are five layouts; the purpose decides which one a kernel uses. The key is
// already the one derived from the release's label.
//
// Neighbouring (kde_em's draw from all scores): a block serves eight neighbouring elements; element j reads the 64-bit
// word j mod 8 of block j div 8.
//
// Own (kde_em's trials after the first): block j is element j's, and holds four trials of two 64-bit words.
//
// Stream (mask_sum): a vector of 32-bit or 64-bit words is laid over the key stream as it comes, byte for byte. So
// 32-bit element j reads word j mod 16 of block j div 16, and 64-bit element j reads as in the neighbouring layout.
//
// Spread (the other kernels, and kde_em's first trial): 16 blocks serve 128 neighbouring elements, and 64-bit word w of
// the group's block b serves its element 16 w + b. So element j reads word (j div 16) mod 8 of block 16 (j div 128) + j
// mod 16, and code that computes several blocks at once, one in each lane, has neighbouring elements in its lanes
// without a transposition. Word 14 is then the number of the draw among those of one element, where it takes more than
// one.
//
// Half-word spread (noisy_activations): the same with 32-bit words: 16 blocks serve 256 neighbouring elements, and
// 32-bit word w of the group's block b serves its element 16 w + b.
#pragma once

#include "lanes.h"

namespace privkernels {

// Which kernel draws: kernels with the same key and label never see the same bits.
enum Purpose : uint32_t {
  kPurposeKdeEm = 1,
  kPurposeNoiseAdd = 2,
  kPurposeEmSelect = 3,
  kPurposePermuteAndFlip = 4,
  kPurposeRandomizedResponse = 5,
  kPurposeNoisyActivations = 6,
  kPurposeMaskSum = 7,
  kPurposePrune = 8,
  kPurposeKdeEmTrial = 16,
  kPurposeKdeEmRetry = 17
};

// W is uint32_t, or a vector of them with one block in each lane.
template <class W>
PK_HD W rotate_left(W value, int count) {
  return (value << count) | (value >> (32 - count));
}

#if defined(PK_LANES) && defined(__AVX2__) && !defined(__AVX512VL__) && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
// AVX2 has no rotation, but moves bytes in one instruction.
typedef uint8_t ByteLanes __attribute__((vector_size(32)));

PK_HD BitLanes rotate_left(BitLanes value, int count) {
  const ByteLanes x = reinterpret_cast<ByteLanes>(value);
  if (count == 16) {
    return reinterpret_cast<BitLanes>(__builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12,
                                                              13, 18, 19, 16, 17, 22, 23, 20, 21, 26, 27, 24, 25, 30,
                                                              31, 28, 29));
  }
  if (count == 8) {
    return reinterpret_cast<BitLanes>(__builtin_shufflevector(x, x, 3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13,
                                                              14, 19, 16, 17, 18, 23, 20, 21, 22, 27, 24, 25, 26, 31,
                                                              28, 29, 30));
  }
  return (value << count) | (value >> (32 - count));
}
#endif
#endif

template <class W>
PK_HD void chacha20_quarter_round(W& a, W& b, W& c, W& d) {
  a += b, d = rotate_left(d ^ a, 16);
  c += d, b = rotate_left(b ^ c, 12);
  a += b, d = rotate_left(d ^ a, 8);
  c += d, b = rotate_left(b ^ c, 7);
}

// key [8], counter_nonce [4] (words 12 to 15), out [16]; all words little-endian as in RFC 8439, 2.3. A word of the key
// is whatever can be added to a W.
template <class Key, class W>
PK_HD void chacha20_block(const Key* key, const W* counter_nonce, W* out) {
  const uint32_t constants[4] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u};
  W x[16];
  for (int i = 0; i < 4; ++i) x[i] = W{} + constants[i];
  for (int i = 0; i < 8; ++i) x[4 + i] = W{} + key[i];
  for (int i = 0; i < 4; ++i) x[12 + i] = counter_nonce[i];
  for (int round = 0; round < 10; ++round) {
    chacha20_quarter_round(x[0], x[4], x[8], x[12]);
    chacha20_quarter_round(x[1], x[5], x[9], x[13]);
    chacha20_quarter_round(x[2], x[6], x[10], x[14]);
    chacha20_quarter_round(x[3], x[7], x[11], x[15]);
    chacha20_quarter_round(x[0], x[5], x[10], x[15]);
    chacha20_quarter_round(x[1], x[6], x[11], x[12]);
    chacha20_quarter_round(x[2], x[7], x[8], x[13]);
    chacha20_quarter_round(x[3], x[4], x[9], x[14]);
  }
  for (int i = 0; i < 4; ++i) out[i] = x[i] + constants[i];
  for (int i = 0; i < 8; ++i) out[4 + i] = x[4 + i] + key[i];
  for (int i = 0; i < 4; ++i) out[12 + i] = x[12 + i] + counter_nonce[i];
}

// The block that holds the draws of elements 8 * block to 8 * block + 7. out [16].
PK_HD void addressed_block(const uint32_t* key, uint64_t block, uint32_t attempt, uint32_t purpose, uint32_t* out) {
  const uint32_t address[4] = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), attempt, purpose};
  chacha20_block(key, address, out);
}

// The 64 bits that word `word` of a block holds.
PK_HD uint64_t block_bits(const uint32_t* block_words, int word) {
  return static_cast<uint64_t>(block_words[2 * word]) | (static_cast<uint64_t>(block_words[2 * word + 1]) << 32);
}

// The 64 uniform bits of one element, out of the block that serves it.
PK_HD uint64_t element_bits(const uint32_t* block_words, uint64_t element) {
  return block_bits(block_words, static_cast<int>(element % 8));
}

// --- the spread layout ---

constexpr int kSpreadGroup = 128;  // elements that share 16 blocks
constexpr int kSpreadBlocks = 16;

PK_HD uint64_t spread_block(uint64_t element) {
  return element / kSpreadGroup * kSpreadBlocks + element % kSpreadBlocks;
}

PK_HD int spread_word(uint64_t element) { return static_cast<int>(element / kSpreadBlocks % 8); }

// Draw `draw` of one element; code that serves many elements computes each block once instead.
PK_HD uint64_t spread_bits(const uint32_t* key, uint64_t element, uint32_t draw, uint32_t purpose) {
  uint32_t words[16];
  addressed_block(key, spread_block(element), draw, purpose, words);
  return block_bits(words, spread_word(element));
}

constexpr int kHalfSpreadGroup = 256;  // elements that share 16 blocks where each takes 32 bits

// The 32 bits of one element in the half-word layout.
PK_HD uint32_t half_spread_bits(const uint32_t* key, uint64_t element, uint32_t draw, uint32_t purpose) {
  uint32_t words[16];
  addressed_block(key, element / kHalfSpreadGroup * kSpreadBlocks + element % kSpreadBlocks, draw, purpose, words);
  return words[element / kSpreadBlocks % 16];
}

#if defined(PK_LANES)
// Blocks first + lane, ... of a group, one in each lane. `first` is a multiple of 16: a lane's number carries nowhere.
PK_HD void spread_blocks(const uint32_t* key, uint64_t first, int lane, uint32_t draw, uint32_t purpose,
                         BitLanes* words) {
  uint32_t blocks[PK_LANES];
  for (int i = 0; i < PK_LANES; ++i) blocks[i] = static_cast<uint32_t>(first) + static_cast<uint32_t>(lane + i);
  BitLanes address[4];
  __builtin_memcpy(&address[0], blocks, sizeof blocks);
  address[1] = BitLanes{} + static_cast<uint32_t>(first >> 32);
  address[2] = BitLanes{} + draw;
  address[3] = BitLanes{} + purpose;
  chacha20_block(key, address, words);
}

// The 32 bits of each element of a whole group of the half-word layout: bits [256].
PK_HD void half_spread_group(const uint32_t* key, uint64_t group, uint32_t draw, uint32_t purpose, uint32_t* bits) {
  for (int lane = 0; lane < kSpreadBlocks; lane += PK_LANES) {
    BitLanes words[16];
    spread_blocks(key, group * kSpreadBlocks, lane, draw, purpose, words);
    for (int w = 0; w < 16; ++w) __builtin_memcpy(bits + w * kSpreadBlocks + lane, &words[w], sizeof(BitLanes));
  }
}

// The draws of a whole group, split into low and high 32 bits: low [128], high [128]. PK_LANES divides 16.
PK_HD void spread_group(const uint32_t* key, uint64_t group, uint32_t draw, uint32_t purpose, uint32_t* low,
                        uint32_t* high) {
  for (int lane = 0; lane < kSpreadBlocks; lane += PK_LANES) {
    BitLanes words[16];
    spread_blocks(key, group * kSpreadBlocks, lane, draw, purpose, words);
    for (int word = 0; word < 8; ++word) {
      __builtin_memcpy(low + word * kSpreadBlocks + lane, &words[2 * word], sizeof(BitLanes));
      __builtin_memcpy(high + word * kSpreadBlocks + lane, &words[2 * word + 1], sizeof(BitLanes));
    }
  }
}
#endif

}  // namespace privkernels
