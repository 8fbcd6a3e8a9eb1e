// prune under the sanitizers: every instruction set and number of threads against a stable sort, in memory blocks that
// end with the last entry.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "cpu/isa.h"
#include "cpu/prune_variant.h"
#include "tests/expect.h"

namespace privkernels {
namespace {

enum class Kind { kAny, kTies, kEqual, kSorted, kPruned };

template <class Bits>
std::vector<Bits> entries_of(int64_t size, Kind kind, uint64_t infinity) {
  std::mt19937_64 random(static_cast<uint64_t>(size));
  std::vector<Bits> entries(static_cast<size_t>(size));
  for (Bits& entry : entries) {
    entry = static_cast<Bits>(random());
    if (kind == Kind::kTies) entry = static_cast<Bits>(entry & (sign_of<Bits>() | 3));
    if (kind == Kind::kEqual) entry = static_cast<Bits>(1);
    if (kind == Kind::kPruned && random() % 10 != 0) entry = 0;
    if (magnitude_bits(entry) > infinity) entry = static_cast<Bits>(sign_of<Bits>() | infinity);
  }
  if (kind == Kind::kSorted) std::sort(entries.begin(), entries.end());
  return entries;
}

const PruneVariant* variant_of(Isa isa) {
#if defined(PRIVKERNELS_X86)
  if (isa == Isa::kAvx2) return &avx2::prune_variant;
  if (isa == Isa::kAvx512) return &avx512::prune_variant;
#endif
  (void)isa;
  return &base::prune_variant;
}

template <class Bits, bool magnitude>
void check_mask(FloatFormat format, int64_t size, int64_t stride, int64_t keep, Kind kind) {
  char where[128];
  std::snprintf(where, sizeof where, "format=%d magnitude=%d size=%lld stride=%lld keep=%lld kind=%d",
                static_cast<int>(format), magnitude, static_cast<long long>(size), static_cast<long long>(stride),
                static_cast<long long>(keep), static_cast<int>(kind));
  const std::vector<Bits> entries = entries_of<Bits>(size, kind, infinity_of(format));
  std::vector<size_t> order(entries.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return order_key<magnitude>(entries[a]) > order_key<magnitude>(entries[b]);
  });
  std::vector<uint8_t> expected(entries.size());
  for (int64_t i = 0; i < keep; ++i) expected[order[static_cast<size_t>(i)]] = 1;

  // Two segments; the first has the stride.
  const int64_t first = size / 3, second = size - first;
  std::vector<Bits> strided(static_cast<size_t>(first > 0 ? (first - 1) * stride + 1 : 0));
  for (int64_t i = 0; i < first; ++i) strided[static_cast<size_t>(i * stride)] = entries[static_cast<size_t>(i)];
  std::vector<Bits> rest(entries.begin() + first, entries.end());
  for (const int threads : {1, 3}) {
    std::vector<uint8_t> bools(entries.size(), 7);
    std::vector<uint8_t> bits_first(static_cast<size_t>(first + 7) / 8), bits_rest(static_cast<size_t>(second + 7) / 8);
    std::vector<Bits> values(entries.size()), in_place(entries);
    Bits threshold{};
    PruneSegment segments[2] = {{strided.data(), stride, first, bools.data()},
                                {rest.data(), 1, second, bools.data() + first}};
    PruneMaskArgs args{segments, 2, format, magnitude, keep, PruneOutput::kBools, &threshold};
    expect(prune_mask_cpu(args, threads).code == StatusCode::kOk, "prune_mask_cpu succeeds", where);
    expect(bools == expected, "bools", where);
    if (keep > 0) {
      expect(order_key<magnitude>(threshold) == order_key<magnitude>(entries[order[static_cast<size_t>(keep) - 1]]),
             "threshold", where);
    }
    segments[0].output = bits_first.data(), segments[1].output = bits_rest.data();
    args.output = PruneOutput::kBits;
    prune_mask_cpu(args, threads);
    for (int64_t i = 0; i < size; ++i) {
      const int64_t at = i < first ? i : i - first;
      const uint8_t byte = (i < first ? bits_first : bits_rest)[static_cast<size_t>(at / 8)];
      expect(((byte >> at % 8) & 1) == expected[static_cast<size_t>(i)], "bits", where);
    }
    segments[0].output = values.data(), segments[1].output = values.data() + first;
    args.output = PruneOutput::kValues;
    prune_mask_cpu(args, threads);
    segments[0] = {in_place.data(), 1, first, in_place.data()};
    segments[1] = {in_place.data() + first, 1, second, in_place.data() + first};
    args.output = PruneOutput::kInPlace;
    prune_mask_cpu(args, threads);
    for (size_t i = 0; i < entries.size(); ++i) {
      expect(values[i] == (expected[i] ? entries[i] : 0), "values", where);
    }
    expect(in_place == values, "in place", where);
  }
}

template <class Bits>
void check_variants(FloatFormat format) {
  for (const int64_t size : {1, 7, 255, 257, 5000}) {
    std::vector<Bits> entries = entries_of<Bits>(size, Kind::kTies, infinity_of(format));
    std::vector<std::vector<uint8_t>> results;
    for (int i = 0; i < kIsaCount; ++i) {
      if (!isa_supported(static_cast<Isa>(i))) continue;
      const PruneVariant& variant = *variant_of(static_cast<Isa>(i));
      std::vector<uint8_t> out(static_cast<size_t>(size));
      std::vector<uint64_t> keys(static_cast<size_t>(size));
      std::vector<uint32_t> indices(static_cast<size_t>(size));
      PruneMaskArgs args{nullptr, 0, format, true, 0, PruneOutput::kBools, nullptr};
      const PruneChunk chunk{reinterpret_cast<const char*>(entries.data()), 1, size,
                             reinterpret_cast<char*>(out.data())};
      const PruneCounts counts = variant.scan(args, chunk, {1, 3}, keys.data(), indices.data());
      int64_t inside = 0, above = 0;
      for (const Bits entry : entries) inside += magnitude_bits(entry) == 1 || magnitude_bits(entry) == 2;
      for (const Bits entry : entries) above += magnitude_bits(entry) >= 3;
      expect(counts.inside == inside && counts.above == above && counts.nan < 0, "scan counts", isa_name(Isa(i)));
      for (int64_t f = 0; f < inside; ++f) {
        const size_t at = indices[static_cast<size_t>(f)];
        expect(magnitude_bits(entries[at]) == keys[static_cast<size_t>(f)], "scan collects", isa_name(Isa(i)));
      }
      variant.emit(args, chunk, 2, inside / 3);
      results.push_back(out);
      std::vector<uint8_t> pattern(static_cast<size_t>(size));
      variant.pattern({entries.data(), 1, size, 1, 2, 4, format, pattern.data()}, 0, (size + 3) / 4);
      results.back().insert(results.back().end(), pattern.begin(), pattern.end());
      const PruneRandomArgs random{entries.data(), 1, size, format, -1e300, 1e300, {1, 2, 3}, 77, pattern.data()};
      variant.random(random, 0, size);
      results.back().insert(results.back().end(), pattern.begin(), pattern.end());
      std::vector<Bits> copy(entries);
      variant.apply({copy.data(), size, static_cast<int32_t>(sizeof(Bits)), pattern.data(), false}, 0, size);
      for (int64_t e = 0; e < size; ++e) {
        const size_t at = static_cast<size_t>(e);
        expect(copy[at] == (pattern[at] ? entries[at] : 0), "apply", isa_name(Isa(i)));
      }
    }
    for (const auto& result : results) expect(result == results[0], "variants agree", "check_variants");
  }
}

void check_nan() {
  std::vector<float> entries(100000, 1.0f);
  entries[40001] = entries[99999] = __builtin_nanf("");
  std::vector<float> copy(entries);
  PruneSegment segments[2] = {{entries.data(), 1, 10, entries.data()}, {entries.data() + 10, 1, 99990, &entries[10]}};
  const PruneMaskArgs args{segments, 2, FloatFormat::kFloat32, true, 5, PruneOutput::kInPlace, nullptr};
  const Status status = prune_mask_cpu(args, 2);
  expect(status.code == StatusCode::kNonFinite && status.member == 1 && status.element == 39991, "NaN named", "NaN");
  expect(std::memcmp(copy.data(), entries.data(), 400000) == 0, "nothing changed", "NaN");
}

template <class Bits>
void check_format(FloatFormat format) {
  for (const Kind kind : {Kind::kAny, Kind::kTies, Kind::kEqual, Kind::kSorted, Kind::kPruned}) {
    for (const int64_t size : {1, 9, 300, 40000, 200001}) {
      for (const int64_t keep : {int64_t{0}, size / 10, size / 2, size}) {
        check_mask<Bits, true>(format, size, 1, keep, kind);
        if (size <= 40000) check_mask<Bits, false>(format, size, 3, keep, kind);
      }
    }
  }
  check_variants<Bits>(format);
}

}  // namespace
}  // namespace privkernels

int main() {
  using namespace privkernels;
  check_format<uint32_t>(FloatFormat::kFloat32);
  check_format<uint16_t>(FloatFormat::kFloat16);
  check_format<uint16_t>(FloatFormat::kBFloat16);
  check_format<uint64_t>(FloatFormat::kFloat64);
  check_nan();
  return verdict();
}
