// ChaCha20 (RFC 8439), addressed rather than advanced.
//
// The block function is the RFC's. Its 128-bit counter and nonce are filled with an address, so that
// every draw is a function of (key, element, attempt, purpose) and of nothing else:
//
//   word 12  low 32 bits of the block number      word 14  attempt
//   word 13  high 32 bits of the block number     word 15  purpose (which kernel draws)
//
// A block holds eight 64-bit draws and serves eight neighbouring elements: element j reads the 64-bit
// word j mod 8 of block j div 8. The key is already the one derived from the release's label.
#pragma once

#include "platform.h"

namespace privkernels {

// Which kernel draws: kernels with the same key and label never see the same bits.
enum Purpose : uint32_t {
  kPurposeKdeEm = 1,
  kPurposeNoiseAdd = 2,
  kPurposeEmSelect = 3,
  kPurposePermuteAndFlip = 4,
  kPurposeRandomizedResponse = 5
};

// W is uint32_t, or a vector of them (BitLanes of lanes.h): then every lane is a block of its own.
template <class W>
PK_HD W rotate_left(W value, int count) {
  return (value << count) | (value >> (32 - count));
}

template <class W>
PK_HD void chacha20_quarter_round(W& a, W& b, W& c, W& d) {
  a += b, d = rotate_left(d ^ a, 16);
  c += d, b = rotate_left(b ^ c, 12);
  a += b, d = rotate_left(d ^ a, 8);
  c += d, b = rotate_left(b ^ c, 7);
}

// key [8], counter_nonce [4] (words 12 to 15), out [16]; all words little-endian as in RFC 8439, 2.3.
template <class W>
PK_HD void chacha20_block(const uint32_t* key, const W* counter_nonce, W* out) {
  const uint32_t constants[4] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u};
  W initial[16];
  for (int i = 0; i < 4; ++i) initial[i] = W{} + constants[i];
  for (int i = 0; i < 8; ++i) initial[4 + i] = W{} + key[i];
  for (int i = 0; i < 4; ++i) initial[12 + i] = counter_nonce[i];
  W x[16];
  for (int i = 0; i < 16; ++i) x[i] = initial[i];
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
  for (int i = 0; i < 16; ++i) out[i] = x[i] + initial[i];
}

// The block that holds the draws of elements 8 * block to 8 * block + 7. out [16].
PK_HD void addressed_block(const uint32_t* key, uint64_t block, uint32_t attempt, uint32_t purpose, uint32_t* out) {
  const uint32_t address[4] = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), attempt, purpose};
  chacha20_block(key, address, out);
}

// The 64 uniform bits of one element, out of the block that serves it.
PK_HD uint64_t element_bits(const uint32_t* block_words, uint64_t element) {
  const int word = static_cast<int>(element & 7) * 2;
  return static_cast<uint64_t>(block_words[word]) | (static_cast<uint64_t>(block_words[word + 1]) << 32);
}

}  // namespace privkernels
