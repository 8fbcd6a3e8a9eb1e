// Runs kmeans1d and its split on buffers of the exact size, so that the sanitizers it is built with
// (PRIVKERNELS_SANITIZE) see any access outside them; compares the loops of every instruction set of this machine, and
// the assignment with the nearest centroid.
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "cpu/isa.h"
#include "cpu/kmeans1d_variant.h"
#include "tests/expect.h"

namespace privkernels {
namespace {

const KmeansLoops& loops_of(Isa isa) {
#if defined(PRIVKERNELS_X86)
  if (isa == Isa::kAvx2) return avx2::kmeans_loops;
  if (isa == Isa::kAvx512) return avx512::kmeans_loops;
#endif
  (void)isa;
  return base::kmeans_loops;
}

std::vector<float> normal(int64_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> law;
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = law(random);
  return values;
}

void check_loops(int64_t size) {
  const std::vector<float> values = normal(size, 1);
  const std::vector<double> centroids(kKmeansBlock, 0.25);
  std::vector<double> expected_sums;
  double expected_inertia = 0.0;
  for (int i = 0; i < kIsaCount; ++i) {
    if (!isa_supported(static_cast<Isa>(i))) continue;
    const KmeansLoops& loops = loops_of(static_cast<Isa>(i));
    std::vector<uint32_t> keys(values.size()), histograms(kRadixPasses * kRadixSize);
    expect(loops.keys(values.data(), size, keys.data(), histograms.data()) < 0, "all are finite", isa_name(Isa(i)));
    for (size_t j = 0; j < keys.size(); ++j) {
      if (from_order_key(keys[j]) != values[j]) expect(false, "keys are reversible", isa_name(Isa(i)));
      if (j > 0 && (keys[j - 1] < keys[j]) != (values[j - 1] < values[j])) expect(false, "ordered", isa_name(Isa(i)));
    }
    std::vector<double> sums(static_cast<size_t>((size + kKmeansBlock - 1) / kKmeansBlock));
    loops.block_sums(values.data(), size, sums.data());
    const int part = static_cast<int>(size < kKmeansBlock ? size : kKmeansBlock);
    const double inertia = loops.block_inertia(values.data(), centroids.data(), part);
    if (i == 0) expected_sums = sums, expected_inertia = inertia;
    expect(sums == expected_sums && inertia == expected_inertia, "the same sums", isa_name(static_cast<Isa>(i)));
  }
}

template <class Index>
void check_clusters(int64_t size, int64_t k, KmeansMethod method) {
  char where[96];
  std::snprintf(where, sizeof where, "N=%lld k=%lld method=%d", static_cast<long long>(size), static_cast<long long>(k),
                static_cast<int>(method));
  const std::vector<float> values = normal(size, 2);
  std::vector<float> centroids(static_cast<size_t>(k)), rebuilt(values.size());
  std::vector<Index> assignment(values.size());
  std::vector<int32_t> residual(values.size());
  std::vector<int64_t> summary(3);
  double inertia = -1.0;
  const int bytes = static_cast<int>(sizeof(Index));
  for (const int threads : {1, 3}) {
    const Status status = kmeans1d_cpu(
        {values.data(), size, k, 5, method, bytes, centroids.data(), assignment.data(), &inertia, summary.data()},
        threads);
    expect(status.code == StatusCode::kOk && inertia >= 0.0, "kmeans1d_cpu succeeds", where);
    for (size_t j = 0; j < values.size(); ++j) {
      const int64_t own = static_cast<int64_t>(assignment[j]);
      const double distance = std::fabs(static_cast<double>(values[j]) - centroids[static_cast<size_t>(own)]);
      for (int64_t c = 0; c < summary[0]; ++c) {
        const double other = std::fabs(static_cast<double>(values[j]) - centroids[static_cast<size_t>(c)]);
        if (other < distance || (other == distance && c < own)) expect(false, "the nearest centroid", where);
      }
    }
    const Kmeans1dSplitArgs split{
        values.data(),   size,          centroids.data(), summary[0], 40, 20, bytes, assignment.data(),
        residual.data(), rebuilt.data()};
    expect(kmeans1d_split_cpu(split, threads).code == StatusCode::kOk, "kmeans1d_split_cpu succeeds", where);
    for (size_t j = 0; j < values.size(); ++j) {
      const double error = static_cast<double>(rebuilt[j]) - values[j];
      if (std::fabs(error) > 1.1e-6) expect(false, "rebuilt to a step of the grid", where);
    }
  }
}

void check_failures() {
  std::vector<float> values = normal(5000, 3);
  std::vector<float> centroids(2);
  std::vector<uint8_t> assignment(values.size());
  std::vector<int64_t> summary(3);
  double inertia = 0.0;
  values[4321] = std::numeric_limits<float>::infinity(), values[4400] = std::numeric_limits<float>::quiet_NaN();
  const Status status = kmeans1d_cpu({values.data(), 5000, 2, 5, KmeansMethod::kAuto, 1, centroids.data(),
                                      assignment.data(), &inertia, summary.data()},
                                     2);
  expect(status.code == StatusCode::kNonFinite && status.element == 4321, "the element is named", "check_failures");
}

}  // namespace
}  // namespace privkernels

int main() {
  using namespace privkernels;
  for (const int64_t size : {1, 63, 64, 65, 4096, 4097, 70001}) check_loops(size);
  for (const int64_t size : {1, 2, 63, 65, 1000, 4097}) {
    check_clusters<uint8_t>(size, 1, KmeansMethod::kLloyd);
    check_clusters<uint8_t>(size, 16, KmeansMethod::kLloyd);
    check_clusters<uint8_t>(size, 16, KmeansMethod::kOptimal);
    check_clusters<int16_t>(size, 300, KmeansMethod::kAuto);
    check_clusters<int32_t>(size, 50, KmeansMethod::kLloyd);
  }
  check_clusters<uint8_t>(70001, 40, KmeansMethod::kLloyd);  // by the table of buckets
  check_failures();
  return verdict();
}
