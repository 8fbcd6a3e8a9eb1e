// noise_add on the CPU. Compiled once for each instruction set, in a namespace of its own, and without the standard
// library: an inline function compiled here with wide instructions could otherwise be the one that the linker keeps
// for all of them.
#include <cstddef>

#include "core/chacha20.h"
#include "core/noise.h"
#include "noise_add_variant.h"

namespace privkernels {
namespace PK_ISA {
namespace {

// `count` elements from `begin`, which all lie in one group; returns the first that is not finite, or -1.
template <class Format>
int64_t add_to(const NoiseAddArgs& args, const int64_t* noise, int64_t begin, int count) {
  typedef typename Format::Bits Bits;
  const double granularity = power_of_two(args.exponent), inverse = power_of_two(-args.exponent);
  const int64_t offset = begin * static_cast<int64_t>(sizeof(Bits));
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(Bits);
  Bits values[kSpreadGroup], results[kSpreadGroup];  // the output may be the input's memory
  __builtin_memcpy(values, static_cast<const char*>(args.input) + offset, bytes);
  uint32_t bad = 0;
  for (int i = 0; i < count; ++i) {
    bad |= Format::finite(values[i]) ? 0u : 1u;
    results[i] = add_noise<Format>(values[i], noise[i], granularity, inverse);
  }
  __builtin_memcpy(static_cast<char*>(args.output) + offset, results, bytes);
  if (bad == 0) return -1;
  int first = 0;
  while (Format::finite(values[first])) ++first;
  return begin + first;
}

template <NoiseDistribution distribution, class Format>
int64_t add_range(const NoiseAddArgs& args, int64_t begin, int64_t end) {
  int64_t noise[kSpreadGroup];
  for (int64_t at = begin; at < end;) {
    const uint64_t element = args.first_element + static_cast<uint64_t>(at);
    const int skipped = static_cast<int>(element % kSpreadGroup);
    const int64_t room = kSpreadGroup - skipped;
    const int count = static_cast<int>(end - at < room ? end - at : room);
    group_noise<distribution>(args.key, args.tables, args.num_tables, element / kSpreadGroup, 0, kPurposeNoiseAdd,
                              noise);
    if (args.steps) {
      __builtin_memcpy(args.steps + at, noise + skipped, static_cast<std::size_t>(count) * sizeof(int64_t));
    }
    if (args.input) {
      const int64_t failure = add_to<Format>(args, noise + skipped, at, count);
      if (failure >= 0) return failure;
    }
    at += count;
  }
  return -1;
}

template <NoiseDistribution distribution>
int64_t of_format(const NoiseAddArgs& args, int64_t begin, int64_t end) {
  switch (args.format) {
    case FloatFormat::kFloat16: return add_range<distribution, Float16Format>(args, begin, end);
    case FloatFormat::kBFloat16: return add_range<distribution, BFloat16Format>(args, begin, end);
    default: return add_range<distribution, Float32Format>(args, begin, end);
  }
}

}  // namespace

int64_t noise_add_range(const NoiseAddArgs& args, int64_t begin, int64_t end) {
  return args.distribution == NoiseDistribution::kGaussian ? of_format<NoiseDistribution::kGaussian>(args, begin, end)
                                                           : of_format<NoiseDistribution::kLaplace>(args, begin, end);
}

}  // namespace PK_ISA
}  // namespace privkernels
