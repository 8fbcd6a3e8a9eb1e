// Runs em_select for every instruction set of this machine on buffers of the exact size, so that the sanitizers it
// is built with (PRIVKERNELS_SANITIZE) see any access outside them, and compares every index and every sum of
// weights with the arithmetic of core/ on single doubles.
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "core/select.h"
#include "cpu/em_select_variant.h"
#include "cpu/isa.h"
#include "tests/expect.h"

namespace privkernels {
namespace {

constexpr uint32_t kKey[8] = {1, 22, 333, 4444, 55555, 666666, 7777777, 88888888};
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Shape {
  std::vector<int64_t> lengths;
  int64_t stride, k;
  double multiplier, scale;
};

// The segments one after another, `stride` apart, in a buffer that ends with the last score.
template <class T>
std::vector<T> make_scores(const Shape& shape) {
  int64_t total = 0;
  for (const int64_t length : shape.lengths) total += length;
  std::mt19937 random(static_cast<unsigned>(total));
  std::normal_distribution<double> normal;
  std::vector<T> scores(static_cast<size_t>((total - 1) * shape.stride + 1));
  for (T& score : scores) score = static_cast<T>(normal(random) * shape.scale);
  if (total > 3) scores[0] = scores.back();  // a tie
  return scores;
}

int64_t plain_exponential(const std::vector<double>& scores, double largest, double scale, uint32_t segment,
                          uint32_t peel) {
  std::vector<Wide> cumulative;
  Wide sum = 0;
  for (const double score : scores) {
    const auto weight = integer_weight_of(score, largest, scale);
    cumulative.push_back(sum += wide_weight(weight.high, weight.low));
  }
  const Wide target = scale_to_wide(select_bits(kKey, segment, peel), sum);
  int64_t index = 0;
  while (cumulative[static_cast<size_t>(index)] <= target) ++index;
  return index;
}

int64_t plain_permute_and_flip(const std::vector<double>& scores, double largest, double scale, uint32_t segment,
                               uint32_t peel) {
  int64_t best = -1;
  Wide priority = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    const uint32_t counter[4] = {static_cast<uint32_t>(i / 2), segment, peel, kPurposePermuteAndFlip};
    uint32_t words[16];
    chacha20_block(kKey, counter, words);
    const Flip flip = flip_of(words + 8 * (i % 2), 1);
    const auto weight = integer_weight_of(scores[i], largest, scale);
    if (wide_weight(flip.high, flip.low) >= wide_weight(weight.high, weight.low)) continue;
    if (best < 0 || flip.priority < priority) best = static_cast<int64_t>(i), priority = flip.priority;
  }
  return best;
}

template <class T>
std::vector<int64_t> plain(const Shape& shape, const std::vector<T>& from, bool permute, uint64_t first_segment) {
  std::vector<int64_t> result;
  size_t at = 0;
  for (size_t segment = 0; segment < shape.lengths.size(); ++segment) {
    std::vector<double> scores;
    for (int64_t i = 0; i < shape.lengths[segment]; ++i, at += static_cast<size_t>(shape.stride)) {
      scores.push_back(static_cast<double>(from[at]));
    }
    for (int64_t peel = 0; peel < shape.k; ++peel) {
      double largest = -kInfinity;
      for (const double score : scores) largest = larger(score, largest);
      const auto address = static_cast<uint32_t>(first_segment + segment);
      const auto draw = permute ? plain_permute_and_flip : plain_exponential;
      const int64_t index = draw(scores, largest, shape.multiplier * kLog2E, address, static_cast<uint32_t>(peel));
      result.push_back(index);
      scores[static_cast<size_t>(index)] = -kInfinity;
    }
  }
  return result;
}

template <class T>
void check_shape(const Shape& shape) {
  char where[128];
  std::snprintf(where, sizeof where, "S=%zu n=%lld stride=%lld k=%lld multiplier=%g float%zu", shape.lengths.size(),
                static_cast<long long>(shape.lengths[0]), static_cast<long long>(shape.stride),
                static_cast<long long>(shape.k), shape.multiplier, 8 * sizeof(T));
  const std::vector<T> scores = make_scores<T>(shape);
  std::vector<int64_t> offsets{0};
  for (const int64_t length : shape.lengths) offsets.push_back(offsets.back() + length);
  EmSelectArgs args{};
  args.scores = scores.data(), args.is_double = sizeof(T) == 8;
  args.num_segments = static_cast<int64_t>(shape.lengths.size());
  args.offsets = offsets.data(), args.candidate_stride = shape.stride;
  args.multiplier = shape.multiplier, args.k = shape.k, args.first_segment = 5;
  for (int i = 0; i < 8; ++i) args.key[i] = kKey[i];
  for (const bool permute : {false, true}) {
    args.permute_and_flip = permute;
    const std::vector<int64_t> expected = plain(shape, scores, permute, args.first_segment);
    for (const int threads : {1, 3}) {
      std::vector<int64_t> index(expected.size(), -7);
      args.index = index.data();
      expect(em_select_cpu(args, threads).code == StatusCode::kOk, "em_select_cpu succeeds", where);
      expect(index == expected, permute ? "permute-and-flip" : "exponential mechanism", where);
    }
  }
}

EmSelectVariant variant_of(Isa isa) {
#if defined(PRIVKERNELS_X86)
  if (isa == Isa::kAvx2) return avx2::em_select_variant();
  if (isa == Isa::kAvx512) return avx512::em_select_variant();
#endif
  (void)isa;
  return base::em_select_variant();
}

// Every function of every instruction set on `count` scores from -90 to 0 in powers of 2, and far below.
template <class T>
void check_variants(int64_t count) {
  std::vector<T> scores;
  std::mt19937 random(static_cast<unsigned>(count));
  for (int64_t i = 0; i < count; ++i) {
    const double u = static_cast<double>(random()) / 4294967296.0;
    scores.push_back(static_cast<T>(i % 7 == 3 ? -u * 1e30 : i % 5 == 1 ? -std::floor(90 * u) : -90 * u));
  }
  scores[static_cast<size_t>(count / 2)] = 0;
  if (count > 2) scores[0] = static_cast<T>(-kInfinity);  // a removed candidate
  const int64_t blocks = (count + kSelectBlock - 1) / kSelectBlock;
  std::vector<Wide> expected(static_cast<size_t>(blocks), 0);
  for (int64_t i = 0; i < count; ++i) {
    const auto weight = integer_weight_of(static_cast<double>(scores[static_cast<size_t>(i)]), 0.0, 1.0);
    expected[static_cast<size_t>(i / kSelectBlock)] += wide_weight(weight.high, weight.low);
  }
  const SelectScores segment{scores.data(), count, sizeof(T) == 8, 0.0, 1.0};
  const SelectAddress address{kKey, 9, 2};
  const Accepted accepted = base::em_select_variant().permute(segment, 0, blocks, address);
  for (int i = 0; i < kIsaCount; ++i) {
    if (!isa_supported(static_cast<Isa>(i))) continue;
    const EmSelectVariant call = variant_of(static_cast<Isa>(i));
    const char* name = isa_name(static_cast<Isa>(i));
    const SelectLargest found = call.largest(segment, 0, count);
    expect(found.value == 0 && found.usable == (count <= 2), "the largest score", name);
    std::vector<Wide> totals(static_cast<size_t>(blocks));
    call.totals(segment, 0, blocks, totals.data());
    expect(totals == expected, "sums of weights", name);
    for (int64_t block = 0; block < blocks; ++block) {
      Wide cumulative = 0;
      for (int64_t j = block * kSelectBlock; j < count && j < (block + 1) * kSelectBlock; ++j) {
        const auto weight = integer_weight_of(static_cast<double>(scores[static_cast<size_t>(j)]), 0.0, 1.0);
        const Wide own = wide_weight(weight.high, weight.low);
        if (own > 0) {
          expect(call.locate(segment, block, cumulative) == j, "the first target of a candidate", name);
          expect(call.locate(segment, block, cumulative + own - 1) == j, "the last target of a candidate", name);
        }
        cumulative += own;
      }
    }
    const Accepted got = call.permute(segment, 0, blocks, address);
    expect(got.index == accepted.index && got.priority == accepted.priority, "permute", name);
  }
}

void check_arithmetic() {
  for (int n = 0; n <= 200; ++n) {
    expect(exp2_scaled(static_cast<double>(-n)) == std::ldexp(1.0, 40 - n), "powers of two are exact", "exp2_scaled");
  }
  std::mt19937_64 random(1);
  long double worst = 0;
  for (int i = 0; i < 200000; ++i) {
    const double x = -static_cast<double>(random() >> 11) * 0x1p-53 * (i % 2 ? 200 : 1);
    const long double exact = std::exp2(static_cast<long double>(x) + 40);
    worst = std::fmax(worst, std::fabs(static_cast<long double>(exp2_scaled(x)) / exact - 1));
  }
  expect(worst < 0x1p-50L && worst > 0x1p-53L, "the relative error stated", "exp2_scaled");
  const Wide most = ~Wide{0};
  expect(scale_to_wide(most, most) == most - 1, "(2^128 - 1)^2 / 2^128", "scale_to_wide");
  expect(scale_to_wide(Wide{1} << 127, most) == most >> 1, "a half", "scale_to_wide");
  expect(scale_to_wide(most, Wide{1} << 80) == (Wide{1} << 80) - 1, "below the total", "scale_to_wide");
  const Accepted none = none_accepted();
  Accepted best = none;
  consider(best, {0, 5, most}, 0, 5, 3);
  expect(best.index == -1, "a coin of the weight itself is tails", "consider");
  consider(best, {0, 4, most}, 0, 5, 4);
  expect(best.index == 4, "the largest priority is still one", "consider");
  consider(best, {7, 1, most}, 8, 0, 5);
  expect(best.index == 4, "the lower index wins a tie", "consider");
  consider(best, {7, 9, most - 1}, 8, 0, 6);
  expect(best.index == 6 && best.priority == most - 1, "the smaller priority wins", "consider");
}

template <class T>
void check_failures() {
  Shape shape{{300, 200000, 5, 4000}, 2, 3, 1.0, 1.0};
  std::vector<T> scores = make_scores<T>(shape);
  const std::vector<int64_t> offsets{0, 300, 200300, 200305, 204305};
  std::vector<int64_t> index(12);
  EmSelectArgs args{};
  args.scores = scores.data(), args.is_double = sizeof(T) == 8, args.num_segments = 4, args.offsets = offsets.data();
  args.candidate_stride = 2, args.multiplier = 1, args.k = 3, args.index = index.data();
  scores[2 * (200305 + 7)] = std::numeric_limits<T>::infinity();
  scores[2 * (300 + 150001)] = std::numeric_limits<T>::quiet_NaN();
  scores[2 * (300 + 150000)] = -std::numeric_limits<T>::infinity();
  for (const int threads : {1, 2, 3}) {
    const Status status = em_select_cpu(args, threads);
    expect(status.code == StatusCode::kNonFinite && status.member == 1 && status.element == 150000,
           "the first score that is not finite is named", "check_failures");
  }
  args.k = 6;
  expect(em_select_cpu(args, 1).code == StatusCode::kInvalidArgument, "k beyond a segment", "check_failures");
}

}  // namespace
}  // namespace privkernels

int main() {
  using privkernels::check_shape;
  using privkernels::Shape;
  const std::vector<Shape> shapes = {
      {{1}, 1, 1, 1.0, 1.0},
      {{2, 1, 3, 128, 127, 129, 5, 256, 1000}, 1, 1, 2.0, 1.0},
      {{7, 31, 33, 300}, 3, 7, 0.5, 3.0},
      {{64, 64}, 1, 64, 0.0, 1e30},
      {{1000, 20}, 2, 3, 1e300, 1.0},
      {{140000, 3, 131072, 32769}, 1, 2, 1.0, 4.0},
  };
  for (const Shape& shape : shapes) {
    check_shape<float>(shape);
    check_shape<double>(shape);
  }
  for (const int64_t count : {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 127, 128, 129, 255, 400}) {
    privkernels::check_variants<float>(count);
    privkernels::check_variants<double>(count);
  }
  privkernels::check_arithmetic();
  privkernels::check_failures<float>();
  privkernels::check_failures<double>();
  return privkernels::verdict();
}
