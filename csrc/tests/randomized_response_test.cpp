// Runs randomized_response for every instruction set of this machine on buffers of the exact size, so that the
// sanitizers it is built with (PRIVKERNELS_SANITIZE) see any access outside them, and compares every result with one
// element at a time.
#include <cstdio>
#include <limits>
#include <vector>

#include "core/chacha20.h"
#include "core/response.h"
#include "cpu/isa.h"
#include "cpu/randomized_response_variant.h"
#include "tests/expect.h"

namespace privkernels {
namespace {

struct Problem {
  Problem(int64_t size, int64_t stride, int64_t categories, uint64_t first_element)
      : values(static_cast<size_t>((size - 1) * stride + 1), -1), out(static_cast<size_t>(size), -7) {
    for (int64_t i = 0; i < size; ++i) values[static_cast<size_t>(i * stride)] = i * 2654435761 % categories;
    args.values = values.data(), args.stride = stride, args.num_elements = size, args.categories = categories;
    args.threshold = uint64_t{3} << 61;
    for (uint32_t i = 0; i < 8; ++i) args.key[i] = 0x9e3779b9u * (i + 1);
    args.first_element = first_element;
    args.out = out.data();
  }

  std::vector<int64_t> plain() const {
    std::vector<int64_t> result;
    for (int64_t i = 0; i < args.num_elements; ++i) {
      const uint64_t element = args.first_element + static_cast<uint64_t>(i);
      uint32_t coins[16], choices[16];
      addressed_block(args.key, element / 8, 0, kPurposeRandomizedResponse, coins);
      addressed_block(args.key, element / 8, 1, kPurposeRandomizedResponse, choices);
      const int64_t value = args.values[i * args.stride];
      const int64_t j =
          static_cast<int64_t>(scale_to(element_bits(choices, element), static_cast<uint64_t>(args.categories - 1)));
      result.push_back(element_bits(coins, element) < args.threshold ? value : j < value ? j : j + 1);
    }
    return result;
  }

  std::vector<int64_t> values, out;
  RandomizedResponseArgs args{};
};

RandomizedResponseRange range_of(Isa isa) {
#if defined(PRIVKERNELS_X86)
  if (isa == Isa::kAvx2) return avx2::randomized_response_range;
  if (isa == Isa::kAvx512) return avx512::randomized_response_range;
#endif
  (void)isa;
  return base::randomized_response_range;
}

void check(int64_t size, int64_t stride, int64_t categories, uint64_t first_element) {
  char where[128];
  std::snprintf(where, sizeof where, "N=%lld stride=%lld K=%lld first=%llu", static_cast<long long>(size),
                static_cast<long long>(stride), static_cast<long long>(categories),
                static_cast<unsigned long long>(first_element));
  Problem problem(size, stride, categories, first_element);
  const std::vector<int64_t> expected = problem.plain();
  for (int i = 0; i < kIsaCount; ++i) {
    if (!isa_supported(static_cast<Isa>(i))) continue;
    problem.out.assign(problem.out.size(), -7);
    expect(range_of(static_cast<Isa>(i))(problem.args, 0, size) == -1, "no failure is reported", where);
    expect(problem.out == expected, isa_name(static_cast<Isa>(i)), where);
  }
  for (const int threads : {1, 3}) {
    problem.out.assign(problem.out.size(), -7);
    expect(randomized_response_cpu(problem.args, threads).code == StatusCode::kOk, "it succeeds", where);
    expect(problem.out == expected, "randomized_response_cpu gives the same", where);
  }
}

void check_failures() {
  Problem problem(100000, 2, 5, 3);
  problem.values[2 * 70000] = 5;
  problem.values[2 * 60000] = -1;
  problem.values[2 * 90000] = std::numeric_limits<int64_t>::min();
  for (const int threads : {1, 2, 3}) {
    const Status status = randomized_response_cpu(problem.args, threads);
    expect(status.code == StatusCode::kInvalidParameter && status.element == 60000, "the first bad value is named",
           "check_failures");
  }
}

}  // namespace
}  // namespace privkernels

int main() {
  using privkernels::check;
  for (const int64_t size : {1, 7, 8, 9, 127, 128, 129, 1000}) {
    for (const uint64_t first : {uint64_t{0}, uint64_t{5}, (uint64_t{1} << 35) - 9}) check(size, 1, 7, first);
  }
  check(40000, 3, 2, 1);
  check(500, 1, int64_t{1} << 31, 0);
  privkernels::check_failures();
  return privkernels::verdict();
}
