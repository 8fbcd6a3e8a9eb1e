// prune for one instruction set. This file is compiled once for each, in a namespace of its own (PK_ISA), and without
// the standard library: see core/platform.h. The loops over a block are written so that compilers vectorise them.
#include "core/prune.h"

#include "prune_variant.h"

namespace privkernels {
namespace PK_ISA {
namespace {

constexpr int kBlock = 256;  // entries; counts within a block fit 16 bits

// A block of scores side by side: where they lie, or copied together.
template <class Bits>
PK_HD const Bits* block_of(const char* scores, int64_t stride, int64_t at, int count, Bits* room) {
  const Bits* from = reinterpret_cast<const Bits*>(scores) + at * stride;
  if (stride == 1) return from;
  for (int i = 0; i < count; ++i) room[i] = from[i * stride];
  return room;
}

// Eight bytes of 0 or 1 as eight bits.
PK_HD uint8_t packed(const uint8_t* bytes) {
  uint64_t word;
  __builtin_memcpy(&word, bytes, sizeof word);
  return static_cast<uint8_t>((word * 0x0102040810204080u) >> 56);
}

PK_HD void write_bits(const uint8_t* kept, int count, uint8_t* bits) {
  const int whole = count / 8;
  for (int i = 0; i < whole; ++i) bits[i] = packed(kept + 8 * i);
  if (count % 8 == 0) return;
  uint8_t last[8] = {};
  for (int i = 8 * whole; i < count; ++i) last[i - 8 * whole] = kept[i];
  bits[whole] = packed(last);
}

// The output of a block where keys from `least` on are kept. least may be one more than any key.
template <bool magnitude, class Bits>
PK_HD void write_block(PruneOutput output, const Bits* bits, int count, Bits least, char* out, int64_t at) {
  if (output == PruneOutput::kBools) {
    uint8_t* to = reinterpret_cast<uint8_t*>(out) + at;
    for (int i = 0; i < count; ++i) to[i] = order_key<magnitude>(bits[i]) >= least;
  } else if (output == PruneOutput::kBits) {
    uint8_t kept[kBlock];
    for (int i = 0; i < count; ++i) kept[i] = order_key<magnitude>(bits[i]) >= least;
    write_bits(kept, count, reinterpret_cast<uint8_t*>(out) + at / 8);
  } else {
    Bits* to = reinterpret_cast<Bits*>(out) + at;
    for (int i = 0; i < count; ++i) {
      const Bits value = bits[i];
      to[i] = static_cast<Bits>(order_key<magnitude>(value) >= least ? value : 0);
    }
  }
}

template <class Bits>
struct BlockCounts {
  Bits from_low, from_high, nan;
};

// Also says which entries lie inside the bracket.
template <bool magnitude, class Bits>
PK_HD BlockCounts<Bits> count_block(const Bits* bits, int count, Bits low, Bits high, Bits infinity, uint8_t* inside) {
  Bits from_low = 0, from_high = 0, nan = 0;
  for (int i = 0; i < count; ++i) {
    const Bits key = order_key<magnitude>(bits[i]);
    const Bits reaches_low = key >= low, reaches_high = key >= high;
    from_low = static_cast<Bits>(from_low + reaches_low);
    from_high = static_cast<Bits>(from_high + reaches_high);
    nan = static_cast<Bits>(nan | Bits{magnitude_bits(bits[i]) > infinity});
    inside[i] = static_cast<uint8_t>(reaches_low - reaches_high);
  }
  return {from_low, from_high, nan};
}

// Appends the entries inside; returns how many there are.
template <bool magnitude, class Bits>
PK_HD int64_t collect(const Bits* bits, int count, const uint8_t* inside, int64_t at, uint64_t* keys,
                      uint32_t* indices) {
  int64_t found = 0;
  for (int first = 0; first < count; first += 64) {
    uint64_t word = 0;  // a bit for each of 64 entries
    for (int byte = 0; byte < 8; ++byte) word |= static_cast<uint64_t>(packed(inside + first + 8 * byte)) << 8 * byte;
    for (; word != 0; word &= word - 1) {
      const int i = first + __builtin_ctzll(word);
      keys[found] = order_key<magnitude>(bits[i]);
      indices[found++] = static_cast<uint32_t>(at + i);
    }
  }
  return found;
}

template <bool magnitude, class Bits>
PruneCounts scan(const PruneMaskArgs& args, const PruneChunk& chunk, PruneBracket bracket, uint64_t* keys,
                 uint32_t* indices) {
  const Bits low = static_cast<Bits>(bracket.low), high = static_cast<Bits>(bracket.high);
  const Bits infinity = static_cast<Bits>(infinity_of(args.format));
  PruneCounts result;
  Bits room[kBlock];
  uint8_t inside[kBlock] = {};  // what lies beyond `count` stays 0
  for (int64_t at = 0; at < chunk.size; at += kBlock) {
    const int count = static_cast<int>(chunk.size - at < kBlock ? chunk.size - at : kBlock);
    const Bits* bits = block_of(chunk.scores, chunk.stride, at, count, room);
    if (count < kBlock) __builtin_memset(inside, 0, sizeof inside);
    const BlockCounts<Bits> counts = count == kBlock ? count_block<magnitude>(bits, kBlock, low, high, infinity, inside)
                                                     : count_block<magnitude>(bits, count, low, high, infinity, inside);
    if (counts.nan != 0 && result.nan < 0) {
      result.nan = at;
      while (magnitude_bits(bits[result.nan - at]) <= infinity) ++result.nan;
    }
    if (args.output != PruneOutput::kInPlace) {
      if (count == kBlock) {
        write_block<magnitude>(args.output, bits, kBlock, high, chunk.output, at);
      } else {
        write_block<magnitude>(args.output, bits, count, high, chunk.output, at);
      }
    }
    const int64_t within = static_cast<int64_t>(counts.from_low) - static_cast<int64_t>(counts.from_high);
    if (keys != nullptr && within > 0) {
      const int64_t found = collect<magnitude>(bits, count, inside, at, keys, indices);
      keys += found, indices += found;
    }
    result.above += static_cast<int64_t>(counts.from_high);
    result.inside += within;
  }
  return result;
}

template <bool magnitude, class Bits>
void count(const PruneMaskArgs&, const PruneChunk& chunk, PruneBracket bracket, int shift, int64_t* histogram) {
  const Bits* scores = reinterpret_cast<const Bits*>(chunk.scores);
  const uint64_t width = bracket.high - bracket.low;
  for (int64_t i = 0; i < chunk.size; ++i) {
    const uint64_t offset = uint64_t{order_key<magnitude>(scores[i * chunk.stride])} - bracket.low;
    if (offset < width) ++histogram[offset >> shift];
  }
}

template <bool magnitude, class Bits>
void emit(const PruneMaskArgs& args, const PruneChunk& chunk, uint64_t threshold, int64_t ties) {
  const Bits key = static_cast<Bits>(threshold), more = static_cast<Bits>(threshold + 1);
  Bits room[kBlock];
  for (int64_t at = 0; at < chunk.size; at += kBlock) {
    const int count = static_cast<int>(chunk.size - at < kBlock ? chunk.size - at : kBlock);
    const Bits* bits = block_of(chunk.scores, chunk.stride, at, count, room);
    if (args.output == PruneOutput::kInPlace) {  // loops that read and write one place are not vectorised
      __builtin_memcpy(room, bits, static_cast<unsigned long>(count) * sizeof(Bits));
      bits = room;
    }
    Bits tied = 0;
    for (int i = 0; i < count; ++i) tied = static_cast<Bits>(tied + Bits{order_key<magnitude>(bits[i]) == key});
    const int64_t here = static_cast<int64_t>(tied);
    if (ties >= here || ties == 0) {
      write_block<magnitude>(args.output, bits, count, here > 0 && ties > 0 ? key : more, chunk.output, at);
      ties -= ties > 0 ? here : 0;
      continue;
    }
    // The last tie to be kept lies in this block: up to it ties are kept, and after it they are not. Output begins at
    // multiples of 8, so the block is written as if no tie were kept, and the ties are added.
    Bits kept[kBlock];
    for (int i = 0; i < count; ++i) kept[i] = bits[i];
    write_block<magnitude>(args.output, kept, count, more, chunk.output, at);
    for (int i = 0; ties > 0; ++i) {
      if (order_key<magnitude>(kept[i]) != key) continue;
      --ties;
      if (args.output == PruneOutput::kBools) {
        chunk.output[at + i] = 1;
      } else if (args.output == PruneOutput::kBits) {
        char& byte = chunk.output[(at + i) / 8];
        byte = static_cast<char>(byte | (1 << i % 8));
      } else {
        reinterpret_cast<Bits*>(chunk.output)[at + i] = kept[i];
      }
    }
  }
}

// --- what depends on the width of the format alone ---

template <class Bits>
PruneCounts scan_of(const PruneMaskArgs& args, const PruneChunk& chunk, PruneBracket bracket, uint64_t* keys,
                    uint32_t* indices) {
  return args.magnitude ? scan<true, Bits>(args, chunk, bracket, keys, indices)
                        : scan<false, Bits>(args, chunk, bracket, keys, indices);
}

PruneCounts scan_any(const PruneMaskArgs& args, const PruneChunk& chunk, PruneBracket bracket, uint64_t* keys,
                     uint32_t* indices) {
  switch (prune_element_bytes(args.format)) {
    case 8: return scan_of<uint64_t>(args, chunk, bracket, keys, indices);
    case 4: return scan_of<uint32_t>(args, chunk, bracket, keys, indices);
    default: return scan_of<uint16_t>(args, chunk, bracket, keys, indices);
  }
}

template <class Bits>
void count_of(const PruneMaskArgs& args, const PruneChunk& chunk, PruneBracket bracket, int shift, int64_t* histogram) {
  return args.magnitude ? count<true, Bits>(args, chunk, bracket, shift, histogram)
                        : count<false, Bits>(args, chunk, bracket, shift, histogram);
}

void count_any(const PruneMaskArgs& args, const PruneChunk& chunk, PruneBracket bracket, int shift,
               int64_t* histogram) {
  switch (prune_element_bytes(args.format)) {
    case 8: return count_of<uint64_t>(args, chunk, bracket, shift, histogram);
    case 4: return count_of<uint32_t>(args, chunk, bracket, shift, histogram);
    default: return count_of<uint16_t>(args, chunk, bracket, shift, histogram);
  }
}

template <class Bits>
void emit_of(const PruneMaskArgs& args, const PruneChunk& chunk, uint64_t key, int64_t ties) {
  return args.magnitude ? emit<true, Bits>(args, chunk, key, ties) : emit<false, Bits>(args, chunk, key, ties);
}

void emit_any(const PruneMaskArgs& args, const PruneChunk& chunk, uint64_t key, int64_t ties) {
  switch (prune_element_bytes(args.format)) {
    case 8: return emit_of<uint64_t>(args, chunk, key, ties);
    case 4: return emit_of<uint32_t>(args, chunk, key, ties);
    default: return emit_of<uint16_t>(args, chunk, key, ties);
  }
}

// --- N:M patterns ---

constexpr int kColumns = 64;  // groups side by side

// Groups `group` of columns [column, column + count) of one outer index; member i of column c at
// from[i * member + c * step]. `size` is m, or less in the last group. kSize is m where it is known.
template <int kSize, class Bits>
PK_HD int64_t pattern_columns(const Bits* from, int64_t member, int64_t step, int count, int size, int64_t n,
                              Bits infinity, uint8_t* to) {
  const int entries = kSize > 0 ? kSize : size;
  Bits keys[kSize > 0 ? kSize : kLargestPattern][kColumns];
  uint8_t kept[kSize > 0 ? kSize : kLargestPattern][kColumns];
  Bits nan = 0;
  for (int i = 0; i < entries; ++i) {
    for (int c = 0; c < count; ++c) {
      keys[i][c] = magnitude_bits(from[i * member + c * step]);
      nan = static_cast<Bits>(nan | Bits{keys[i][c] > infinity});
    }
  }
  for (int i = 0; i < entries; ++i) {
    Bits before[kColumns] = {};  // how many entries of the column come before entry i
    for (int j = 0; j < entries; ++j) {
      if (j < i) {
        for (int c = 0; c < count; ++c) before[c] = static_cast<Bits>(before[c] + Bits{keys[j][c] >= keys[i][c]});
      } else if (j > i) {
        for (int c = 0; c < count; ++c) before[c] = static_cast<Bits>(before[c] + Bits{keys[j][c] > keys[i][c]});
      }
    }
    for (int c = 0; c < count; ++c) kept[i][c] = before[c] < static_cast<Bits>(n);
  }
  for (int i = 0; i < entries; ++i) {
    for (int c = 0; c < count; ++c) to[i * member + c * step] = kept[i][c];
  }
  if (nan == 0) return -1;
  int64_t first = -1;  // in memory, among these columns
  for (int i = 0; i < entries; ++i) {
    for (int c = 0; c < count; ++c) {
      const int64_t at = i * member + c * step;
      if (keys[i][c] > infinity && (first < 0 || at < first)) first = at;
    }
  }
  return first;
}

template <class Bits>
PK_HD int64_t columns_of(const PrunePatternArgs& args, int64_t at, int64_t step, int count, int size) {
  const Bits* from = reinterpret_cast<const Bits*>(args.scores) + at;
  const Bits infinity = static_cast<Bits>(infinity_of(args.format));
  uint8_t* to = args.mask + at;
  int64_t nan;
  if (size == 4 && args.inner == 1) {
    nan = step == 4 && count == kColumns ? pattern_columns<4>(from, 1, 4, kColumns, 4, args.n, infinity, to)
                                         : pattern_columns<4>(from, 1, step, count, 4, args.n, infinity, to);
  } else {
    nan = pattern_columns<0>(from, args.inner, step, count, size, args.n, infinity, to);
  }
  return nan < 0 ? -1 : at + nan;
}

// A row is one outer index, its columns are (group, inner) with inner the faster.
template <class Bits>
int64_t pattern(const PrunePatternArgs& args, int64_t begin, int64_t end) {
  const int64_t groups = (args.length + args.m - 1) / args.m, row = groups * args.inner;
  const int64_t whole = args.length / args.m;
  int64_t first = -1;
  for (int64_t next = begin; next < end;) {
    const int64_t outer = next / row, group = next % row / args.inner, inner = next % args.inner;
    const bool is_whole = group < whole;
    // With inner = 1, whole groups side by side; otherwise columns of one group.
    const int64_t run = args.inner == 1 ? (is_whole ? whole - group : 1) : args.inner - inner;
    const int64_t room = run < end - next ? run : end - next;
    const int count = static_cast<int>(room < kColumns ? room : kColumns);
    const int64_t at = (outer * args.length + group * args.m) * args.inner + inner;
    const int size = static_cast<int>(is_whole ? args.m : args.length - whole * args.m);
    const int64_t nan = columns_of<Bits>(args, at, args.inner == 1 ? args.m : 1, count, size);
    if (nan >= 0 && (first < 0 || nan < first)) first = nan;
    next += count;
  }
  return first;
}

int64_t pattern_any(const PrunePatternArgs& args, int64_t begin, int64_t end) {
  switch (prune_element_bytes(args.format)) {
    case 8: return pattern<uint64_t>(args, begin, end);
    case 4: return pattern<uint32_t>(args, begin, end);
    default: return pattern<uint16_t>(args, begin, end);
  }
}

// --- random ---

template <class Format>
int64_t random(const PruneRandomArgs& args, int64_t begin, int64_t end) {
  typedef typename Format::Bits Bits;
  const double low = args.low, high = args.high, width = high - low;
  uint32_t low_words[kSpreadGroup], high_words[kSpreadGroup];
  Bits room[kSpreadGroup];
  int64_t failure = -1;
  for (int64_t at = begin; at < end;) {
    const uint64_t element = args.first_element + static_cast<uint64_t>(at);
    const int skipped = static_cast<int>(element % kSpreadGroup);
    const int64_t left = kSpreadGroup - skipped;
    const int count = static_cast<int>(end - at < left ? end - at : left);
    spread_group(args.key, element / kSpreadGroup, 0, kPurposePrune, low_words, high_words);
    const Bits* bits = block_of(static_cast<const char*>(args.importance), args.stride, at, count, room);
    uint8_t kept[kSpreadGroup];
    uint64_t outside = 0;
    for (int i = 0; i < count; ++i) {
      const uint64_t word = (static_cast<uint64_t>(high_words[skipped + i]) << 32) | low_words[skipped + i];
      const double importance = Format::decode(bits[i]);
      outside |= within(importance, low, high) ? 0u : 1u;
      kept[i] = kept_at_random(importance, low, width, word);
    }
    __builtin_memcpy(args.mask + at, kept, static_cast<unsigned long>(count));
    for (int i = 0; outside != 0 && failure < 0; ++i) {
      if (!within(Format::decode(bits[i]), low, high)) failure = at + i;
    }
    at += count;
  }
  return failure;
}

int64_t random_any(const PruneRandomArgs& args, int64_t begin, int64_t end) {
  switch (args.format) {
    case FloatFormat::kFloat16: return random<PruneFloat16>(args, begin, end);
    case FloatFormat::kBFloat16: return random<PruneBFloat16>(args, begin, end);
    case FloatFormat::kFloat64: return random<PruneFloat64>(args, begin, end);
    default: return random<PruneFloat32>(args, begin, end);
  }
}

// --- application ---

// Eight bits as eight bytes of 0 or 1: byte b keeps bit b alone, and what is not 0 carries into the byte's top bit.
PK_HD uint64_t unpacked(uint8_t byte) {
  const uint64_t alone = (byte * uint64_t{0x0101010101010101}) & 0x8040201008040201u;
  return ((alone + 0x7f7f7f7f7f7f7f7fu) >> 7) & 0x0101010101010101u;
}

template <class Bits>
PK_HD void apply_block(Bits* values, const uint8_t* kept, int count) {
  for (int i = 0; i < count; ++i) values[i] = static_cast<Bits>(kept[i] != 0 ? values[i] : 0);
}

template <class Bits>
void apply(const PruneApplyArgs& args, int64_t begin, int64_t end) {
  Bits* values = static_cast<Bits*>(args.values);
  uint8_t room[kBlock];
  for (int64_t at = begin; at < end; at += kBlock) {
    const int count = static_cast<int>(end - at < kBlock ? end - at : kBlock);
    if (args.bits) {
      for (int i = 0; i < (count + 7) / 8; ++i) {
        const uint64_t bytes = unpacked(args.mask[at / 8 + i]);
        __builtin_memcpy(room + 8 * i, &bytes, sizeof bytes);
      }
    }
    const uint8_t* kept = args.bits ? room : args.mask + at;
    if (count == kBlock) {
      apply_block(values + at, kept, kBlock);
    } else {
      apply_block(values + at, kept, count);
    }
  }
}

void apply_any(const PruneApplyArgs& args, int64_t begin, int64_t end) {
  switch (args.element_bytes) {
    case 8: return apply<uint64_t>(args, begin, end);
    case 4: return apply<uint32_t>(args, begin, end);
    default: return apply<uint16_t>(args, begin, end);
  }
}

}  // namespace

const PruneVariant prune_variant = {scan_any, count_any, emit_any, pattern_any, random_any, apply_any};

}  // namespace PK_ISA
}  // namespace privkernels
