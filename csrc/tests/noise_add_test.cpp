// Runs noise_add for every instruction set of this machine on buffers of the exact size, misaligned and in place, so
// that the sanitizers it is built with (PRIVKERNELS_SANITIZE) see any access outside them, and compares every bit with
// the arithmetic of core/ on single elements.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "core/chacha20.h"
#include "core/noise.h"
#include "cpu/isa.h"
#include "cpu/noise_add_variant.h"
#include "tests/expect.h"

namespace privkernels {
namespace {

template <class T>
void set_at(unsigned char* to, int64_t index, T value) {
  std::memcpy(to + index * static_cast<int64_t>(sizeof value), &value, sizeof value);
}

// Bytes at an odd address, in a block that ends with the last one.
class Misaligned {
 public:
  explicit Misaligned(int64_t bytes) : size_(bytes), bytes_(new unsigned char[static_cast<size_t>(bytes) + 1]()) {}
  unsigned char* data() const { return bytes_.get() + 1; }
  bool same(const Misaligned& other) const {
    return std::memcmp(data(), other.data(), static_cast<size_t>(size_)) == 0;
  }

 private:
  int64_t size_;
  std::unique_ptr<unsigned char[]> bytes_;
};

struct Shape {
  int64_t num_elements;
  uint64_t first_element;
  FloatFormat format;
  NoiseDistribution distribution;
  std::vector<int32_t> index_bits;
  int exponent;
};

int64_t bytes_of(FloatFormat format) { return format == FloatFormat::kFloat32 ? 4 : 2; }

// Tables of arbitrary thresholds and aliases: the arithmetic does not ask whether they make a law.
struct Problem {
  explicit Problem(const Shape& shape) : shape(shape), input(shape.num_elements * bytes_of(shape.format)) {
    std::mt19937_64 random(static_cast<uint64_t>(shape.num_elements) + shape.first_element);
    const int sign_bits = shape.distribution == NoiseDistribution::kGaussian ? 1 : 0;
    int64_t multiplier = 1;
    for (size_t t = 0; t < shape.index_bits.size(); ++t) {
      const int bits = shape.index_bits[t];
      std::vector<uint64_t> entries(size_t{1} << bits);
      for (uint64_t& entry : entries) {
        entry = (random() >> (bits + sign_bits) << (bits + sign_bits)) | (random() & ((uint64_t{1} << bits) - 1));
      }
      tables.push_back(std::move(entries));
      args.tables[t] = {tables.back().data(), multiplier, bits};
      multiplier <<= bits;
    }
    fill(random);
    args.num_tables = static_cast<int32_t>(shape.index_bits.size());
    args.format = shape.format, args.distribution = shape.distribution;
    args.num_elements = shape.num_elements, args.first_element = shape.first_element;
    args.exponent = shape.exponent;
    args.input = input.data();
    for (uint32_t i = 0; i < 8; ++i) args.key[i] = 0x9e3779b9u * (i + 1);
  }

  // Finite numbers of all magnitudes: random bits, but for an exponent of ones.
  void fill(std::mt19937_64& random) {
    for (int64_t j = 0; j < shape.num_elements; ++j) {
      const uint64_t bits = random();
      const uint32_t single = static_cast<uint32_t>(bits);
      const uint16_t half = static_cast<uint16_t>(bits >> 32);
      if (shape.format == FloatFormat::kFloat32) {
        set_at(input.data(), j, Float32Format::finite(single) ? single : single & 0x807fffffu);
      } else if (shape.format == FloatFormat::kFloat16) {
        set_at(input.data(), j, static_cast<uint16_t>(Float16Format::finite(half) ? half : half & 0x83ff));
      } else {
        set_at(input.data(), j, static_cast<uint16_t>(BFloat16Format::finite(half) ? half : half & 0x807f));
      }
    }
  }

  Shape shape;
  Misaligned input;
  std::vector<std::vector<uint64_t>> tables;
  NoiseAddArgs args{};
};

struct Output {
  explicit Output(const Shape& shape)
      : values(shape.num_elements * bytes_of(shape.format)), steps(static_cast<size_t>(shape.num_elements)) {}
  void attach(NoiseAddArgs& args) { args.output = values.data(), args.steps = steps.data(); }
  bool same_bits(const Output& other) const { return values.same(other.values) && steps == other.steps; }
  Misaligned values;
  std::vector<int64_t> steps;
};

template <class Format>
void plain_value(const NoiseAddArgs& args, Output& out, int64_t j, int64_t noise) {
  typename Format::Bits bits;
  std::memcpy(&bits, static_cast<const char*>(args.input) + j * static_cast<int64_t>(sizeof bits), sizeof bits);
  set_at(out.values.data(), j,
         add_noise<Format>(bits, noise, std::ldexp(1.0, args.exponent), std::ldexp(1.0, -args.exponent)));
}

// One element at a time.
void plain(const NoiseAddArgs& args, Output& out) {
  for (int64_t j = 0; j < args.num_elements; ++j) {
    int64_t noise = 0;
    for (int t = 0; t < args.num_tables; ++t) {
      const uint64_t word = spread_bits(args.key, args.first_element + static_cast<uint64_t>(j),
                                        static_cast<uint32_t>(t), kPurposeNoiseAdd);
      const bool last = t == args.num_tables - 1;
      noise = args.distribution == NoiseDistribution::kGaussian
                  ? add_table<NoiseDistribution::kGaussian>(noise, word, args.tables[t], last)
                  : add_table<NoiseDistribution::kLaplace>(noise, word, args.tables[t], last);
    }
    out.steps[static_cast<size_t>(j)] = noise;
    if (args.format == FloatFormat::kFloat32) plain_value<Float32Format>(args, out, j, noise);
    if (args.format == FloatFormat::kFloat16) plain_value<Float16Format>(args, out, j, noise);
    if (args.format == FloatFormat::kBFloat16) plain_value<BFloat16Format>(args, out, j, noise);
  }
}

NoiseAddRange range_of(Isa isa) {
#if defined(PRIVKERNELS_X86)
  if (isa == Isa::kAvx2) return avx2::noise_add_range;
  if (isa == Isa::kAvx512) return avx512::noise_add_range;
#endif
  (void)isa;
  return base::noise_add_range;
}

void check_bits(const Shape& shape) {
  char where[128];
  std::snprintf(where, sizeof where, "N=%lld first=%llu format=%d distribution=%d tables=%zu exponent=%d",
                static_cast<long long>(shape.num_elements), static_cast<unsigned long long>(shape.first_element),
                static_cast<int>(shape.format), static_cast<int>(shape.distribution), shape.index_bits.size(),
                shape.exponent);
  Problem problem(shape);
  Output expected(shape);
  plain(problem.args, expected);
  for (int i = 0; i < kIsaCount; ++i) {
    if (!isa_supported(static_cast<Isa>(i))) continue;
    Output got(shape);
    got.attach(problem.args);
    expect(range_of(static_cast<Isa>(i))(problem.args, 0, shape.num_elements) < 0, "no failure is reported", where);
    expect(got.same_bits(expected), isa_name(static_cast<Isa>(i)), where);
  }
  for (const int threads : {1, 3}) {
    Output got(shape);
    got.attach(problem.args);
    expect(noise_add_cpu(problem.args, threads).code == StatusCode::kOk, "noise_add_cpu succeeds", where);
    expect(got.same_bits(expected), "noise_add_cpu gives the same bits", where);
  }
  problem.args.output = problem.input.data(), problem.args.steps = nullptr;
  expect(noise_add_cpu(problem.args, 2).code == StatusCode::kOk, "noise_add_cpu succeeds in place", where);
  expect(problem.input.same(expected.values), "the same bits in place", where);
  Output alone(shape);
  problem.args.input = nullptr, problem.args.output = nullptr, problem.args.steps = alone.steps.data();
  expect(noise_add_cpu(problem.args, 2).code == StatusCode::kOk, "noise_add_cpu gives noise alone", where);
  expect(alone.steps == expected.steps, "the same noise alone", where);
}

void check_failures() {
  const Shape shape{60000, 77, FloatFormat::kFloat32, NoiseDistribution::kLaplace, {5}, 0};
  for (const int threads : {1, 2, 3}) {
    for (const bool in_place : {false, true}) {
      Problem problem(shape);
      Output out(shape);
      out.attach(problem.args);
      if (in_place) problem.args.output = problem.input.data();
      set_at(problem.input.data(), 20007, std::numeric_limits<float>::quiet_NaN());
      set_at(problem.input.data(), 20009, std::numeric_limits<float>::infinity());
      set_at(problem.input.data(), 59999, -std::numeric_limits<float>::infinity());
      const Status status = noise_add_cpu(problem.args, threads);
      expect(status.code == StatusCode::kNonFinite && status.element == 20007,
             "the first value that is not finite is named", "check_failures");
    }
  }
}

}  // namespace
}  // namespace privkernels

int main() {
  using namespace privkernels;
  for (const FloatFormat format : {FloatFormat::kFloat32, FloatFormat::kFloat16, FloatFormat::kBFloat16}) {
    for (const NoiseDistribution distribution : {NoiseDistribution::kLaplace, NoiseDistribution::kGaussian}) {
      for (const int64_t num_elements : {1, 15, 17, 128, 129, 1000}) {
        check_bits({num_elements, 0, format, distribution, {14}, 0});
        check_bits({num_elements, 127, format, distribution, {1, 9, 3}, -8});
      }
      check_bits({40001, uint64_t{0xfffffff} * 16 + 77, format, distribution, {13, 14}, -20});
      check_bits({300, (uint64_t{1} << 62) + 5, format, distribution, {8, 8, 8, 8, 8}, 100});
      check_bits({300, 1, format, distribution, {6, 6}, -100});
    }
  }
  check_failures();
  return verdict();
}
