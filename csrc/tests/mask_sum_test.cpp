// Runs mask_sum for every instruction set of this machine on buffers of the exact size, so that the sanitizers it is
// built with (PRIVKERNELS_SANITIZE) see any access outside them, and compares every bit with the block function.
#include <cstdio>
#include <vector>

#include "core/chacha20.h"
#include "cpu/isa.h"
#include "cpu/mask_sum_variant.h"
#include "tests/expect.h"

namespace privkernels {
namespace {

MaskSumRange range_of(Isa isa) {
#if defined(PRIVKERNELS_X86)
  if (isa == Isa::kAvx2) return avx2::mask_sum_range;
  if (isa == Isa::kAvx512) return avx512::mask_sum_range;
#endif
  (void)isa;
  return base::mask_sum_range;
}

// One element at a time.
template <class Word>
std::vector<Word> plain(const MaskSumArgs& args, std::vector<Word> values) {
  constexpr uint64_t kWords = 64 / sizeof(Word);
  for (size_t j = 0; j < values.size(); ++j) {
    const uint64_t element = args.first_element + j;
    for (int64_t s = 0; s < args.num_seeds; ++s) {
      uint32_t key[8], words[16];
      __builtin_memcpy(key, args.seeds + 32 * s, sizeof key);
      addressed_block(key, element / kWords, args.round, kPurposeMaskSum, words);
      const int place = static_cast<int>(element % kWords);
      const Word word = static_cast<Word>(kWords == 8 ? block_bits(words, place) : words[place]);
      values[j] = args.signs[s] > 0 ? values[j] + word : values[j] - word;
    }
  }
  return values;
}

template <class Word>
void check(int64_t num_elements, int64_t num_seeds, uint64_t first_element) {
  char where[96];
  std::snprintf(where, sizeof where, "N=%lld n=%lld first=%llu width=%zu", static_cast<long long>(num_elements),
                static_cast<long long>(num_seeds), static_cast<unsigned long long>(first_element), sizeof(Word));
  std::vector<uint8_t> seeds(static_cast<size_t>(32 * num_seeds));
  std::vector<int8_t> signs(static_cast<size_t>(num_seeds));
  for (size_t i = 0; i < seeds.size(); ++i) seeds[i] = static_cast<uint8_t>(i * 167 + 13);
  for (size_t i = 0; i < signs.size(); ++i) signs[i] = i % 3 == 1 ? -1 : 1;
  std::vector<Word> input(static_cast<size_t>(num_elements));
  for (size_t i = 0; i < input.size(); ++i) input[i] = static_cast<Word>(i * 0x9e3779b97f4a7c15ull);
  MaskSumArgs args{nullptr, sizeof(Word) == 8, num_elements, seeds.data(), signs.data(), num_seeds, 77, first_element};
  const std::vector<Word> expected = plain(args, input);
  for (int i = 0; i < kIsaCount; ++i) {
    if (!isa_supported(static_cast<Isa>(i))) continue;
    std::vector<Word> got = input;
    args.values = got.data();
    range_of(static_cast<Isa>(i))(args, 0, num_elements);
    expect(got == expected, isa_name(static_cast<Isa>(i)), where);
  }
  for (const int threads : {1, 3}) {
    std::vector<Word> got = input;
    args.values = got.data();
    expect(mask_sum_cpu(args, threads).code == StatusCode::kOk, "mask_sum_cpu succeeds", where);
    expect(got == expected, "mask_sum_cpu gives the same bits", where);
  }
}

}  // namespace
}  // namespace privkernels

int main() {
  using namespace privkernels;
  for (const int64_t num_elements : {0, 1, 15, 16, 17, 127, 129, 255, 257, 1000}) {
    for (const uint64_t first : {uint64_t{0}, uint64_t{77}, (uint64_t{1} << 36) - 300, (uint64_t{1} << 62) + 5}) {
      for (const int64_t num_seeds : {0, 1, 4, 5}) {
        check<uint32_t>(num_elements, num_seeds, first);
        check<uint64_t>(num_elements, num_seeds, first);
      }
    }
  }
  check<uint32_t>(40001, 60, 3);
  return verdict();
}
