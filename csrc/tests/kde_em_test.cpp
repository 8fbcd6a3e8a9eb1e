// Runs kde_em for every instruction set of this machine on buffers of the exact size, misaligned and
// strided, so that the sanitizers it is built with (PRIVKERNELS_SANITIZE) see any access outside them,
// and compares every bit with the arithmetic of core/ on single floats.
#include <cfenv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "core/chacha20.h"
#include "core/kde_draw.h"
#include "cpu/isa.h"
#include "cpu/kde_em_plan.h"
#include "tests/expect.h"

namespace privkernels {
namespace {

struct Shape {
  int64_t num_members, num_elements, grid_points;
  double window_ratio;
  float scale;
  int64_t stride;
};

// Floats at an address that is no multiple of four, in a block that ends with the last one.
class Misaligned {
 public:
  explicit Misaligned(int64_t size) : bytes_(new unsigned char[static_cast<size_t>(size) * sizeof(float) + 1]) {}
  const void* data() const { return bytes_.get() + 1; }
  void set(int64_t at, float value) { std::memcpy(bytes_.get() + 1 + at * 4, &value, sizeof value); }

 private:
  std::unique_ptr<unsigned char[]> bytes_;
};

struct Problem {
  explicit Problem(const Shape& shape) : shape(shape) {
    std::mt19937 random(static_cast<unsigned>(shape.num_members * 1000 + shape.num_elements));
    std::normal_distribution<float> normal;
    const int64_t room = (shape.num_elements - 1) * shape.stride + 1;
    for (int64_t i = 0; i < shape.num_members; ++i) {
      rows.emplace_back(room);
      for (int64_t j = 0; j < room; ++j) rows.back().set(j, normal(random) * shape.scale * (i == 0 ? 1000.0f : 1.0f));
      members.push_back(rows.back().data());
      strides.push_back(shape.stride);
    }
    for (int64_t j = 0; j < shape.num_elements; ++j) {
      lo.push_back(-shape.scale * (1.0f + static_cast<float>(j % 3)));
      // Some grids are so wide that the envelope cannot serve their element, beside others that it serves.
      const float wide = j % 7 == 3 && shape.scale < 1.0f ? 1e5f : 1.0f;
      hi.push_back(shape.scale * wide * (1.0f + static_cast<float>(j % 5)));
    }
    bandwidth = smaller(larger(shape.scale * 0.2f, kSmallestBandwidth), kLargestBandwidth);
    args.members = members.data(), args.member_strides = strides.data();
    args.num_members = shape.num_members, args.num_elements = shape.num_elements;
    args.lo = lo.data(), args.lo_stride = 1;
    args.hi = hi.data(), args.hi_stride = 1;
    args.bandwidth = &bandwidth, args.bandwidth_stride = 0;
    args.window_ratio = shape.window_ratio;
    args.grid_points = shape.grid_points;
    args.multiplier = static_cast<double>(shape.num_members);
    for (uint32_t i = 0; i < 8; ++i) args.key[i] = 0x9e3779b9u * (i + 1);
    args.first_element = 3;
  }

  Shape shape;
  std::vector<Misaligned> rows;
  std::vector<const void*> members;
  std::vector<int64_t> strides;
  std::vector<float> lo, hi;
  float bandwidth;
  KdeEmArgs args{};
};

struct Output {
  explicit Output(const Shape& shape)
      : value(static_cast<size_t>(shape.num_elements)),
        index(static_cast<size_t>(shape.num_elements)),
        scores(static_cast<size_t>(shape.num_elements * shape.grid_points)) {}
  void attach(KdeEmArgs& args) { args.value = value.data(), args.index = index.data(), args.scores = scores.data(); }
  bool same_bits(const Output& other) const {
    return std::memcmp(value.data(), other.value.data(), value.size() * 4) == 0 && index == other.index &&
           std::memcmp(scores.data(), other.scores.data(), scores.size() * 4) == 0;
  }
  std::vector<float> value;
  std::vector<int32_t> index;
  std::vector<float> scores;
};

// Elements that were drawn by the envelope, and with fixed work by the nodes, so that the tests can see that they were.
int64_t by_envelope = 0, by_nodes = 0;

int64_t from_scores(const KdeEmArgs& args, const KdeEmPlan& plan, const std::vector<float>& totals, float best,
                    uint64_t element) {
  std::vector<uint64_t> cumulative;
  uint64_t sum = 0;
  for (const float total : totals) {
    const float weight = exp2_normal(larger((total - best) * plan.exponent_scale, -125.0f));
    cumulative.push_back(sum += integer_weight(weight, plan.two_to_bits));
  }
  uint32_t words[16];
  addressed_block(args.key, element / 8, args.attempt, kPurposeKdeEm, words);
  const uint64_t target = scale_to(element_bits(words, element), sum);
  int64_t k = 0;
  while (cumulative[static_cast<size_t>(k)] <= target) ++k;
  return k;
}

// One element at a time, from the templates of core/ with F = float.
void plain(const Problem& problem, Output& out) {
  const KdeEmArgs& args = problem.args;
  const KdeEmPlan plan = plan_kde_em(args);
  std::vector<float> nodes(kNodeRoom);
  for (int64_t j = 0; j < args.num_elements; ++j) {
    const KdeElement in = KdeElement::at(args, j);
    std::vector<float> totals;
    float best = 0;
    for (int64_t k = 0; k < args.grid_points; ++k) {
      totals.push_back(kde_score_sum(in, plan.kernel, grid_point(in.lo, in.hi, in.step, k)));
      best = larger(best, totals.back());
      out.scores[static_cast<size_t>(j * args.grid_points + k)] = totals.back() * plan.score_scale;
    }
    int64_t k = -1;
    if (args.fixed_work) {
      std::vector<float> sums(static_cast<size_t>(node_room(args.grid_points)));
      std::vector<float> levels(static_cast<size_t>(2 * level_room(args.grid_points)));
      if (kde_scores_by_nodes(in, plan.nodes, totals.data(), sums.data(), levels.data(), 1, best)) ++by_nodes;
    } else {
      k = kde_draw_by_envelope(in, plan.kernel, plan.envelope, plan.exponent_scale, nodes.data());
      if (k >= 0) ++by_envelope;
    }
    if (k < 0) {
      k = from_scores(args, plan, totals, best, args.first_element + static_cast<uint64_t>(j));
    }
    out.index[static_cast<size_t>(j)] = static_cast<int32_t>(k);
    out.value[static_cast<size_t>(j)] = grid_point(in.lo, in.hi, in.step, k);
  }
}

KdeEmRange range_of(Isa isa) {
#if defined(PRIVKERNELS_X86)
  if (isa == Isa::kAvx2) return avx2::kde_em_range;
  if (isa == Isa::kAvx512) return avx512::kde_em_range;
#endif
  (void)isa;
  return base::kde_em_range;
}

void check_bits(const Shape& shape) {
  char where[128];
  std::snprintf(where, sizeof where, "M=%lld N=%lld R=%lld window=%g scale=%g stride=%lld",
                static_cast<long long>(shape.num_members), static_cast<long long>(shape.num_elements),
                static_cast<long long>(shape.grid_points), shape.window_ratio, static_cast<double>(shape.scale),
                static_cast<long long>(shape.stride));
  Problem problem(shape);
  for (const bool fixed_work : {false, true}) {
    problem.args.fixed_work = fixed_work;
    Output expected(shape);
    plain(problem, expected);
    const KdeEmPlan plan = plan_kde_em(problem.args);
    for (int i = 0; i < kIsaCount; ++i) {
      if (!isa_supported(static_cast<Isa>(i))) continue;
      Output got(shape);
      got.attach(problem.args);
      // Nothing may be read of it that was not written before.
      std::vector<float> scratch(static_cast<size_t>(kde_em_scratch(problem.args)),
                                 std::numeric_limits<float>::quiet_NaN());
      KdeEmFailure failure;
      range_of(static_cast<Isa>(i))(problem.args, plan, 0, shape.num_elements, scratch.data(), failure);
      expect(failure.element < 0, "no failure is reported", where);
      expect(got.same_bits(expected), isa_name(static_cast<Isa>(i)), where);
    }
    for (const int threads : {1, 3}) {
      Output got(shape);
      got.attach(problem.args);
      expect(kde_em_cpu(problem.args, threads).code == StatusCode::kOk, "kde_em_cpu succeeds", where);
      expect(got.same_bits(expected), "kde_em_cpu gives the same bits", where);
    }
  }
}

void check_failures() {
  const Shape shape{5, 3001, 4, 1.0, 0.3f, 2};
  Problem problem(shape);
  Output out(shape);
  out.attach(problem.args);
  problem.rows[3].set(2000 * 2, std::numeric_limits<float>::quiet_NaN());
  problem.rows[4].set(2500 * 2, std::numeric_limits<float>::infinity());
  for (const int threads : {1, 2, 3}) {
    const Status status = kde_em_cpu(problem.args, threads);
    expect(status.code == StatusCode::kNonFinite && status.member == 3 && status.element == 2000,
           "the first value that is not finite is named", "check_failures");
  }
  problem.hi[1500] = problem.lo[1500] - 1.0f;
  const Status status = kde_em_cpu(problem.args, 2);
  expect(status.code == StatusCode::kInvalidParameter && status.element == 1500, "the bad range is named",
         "check_failures");
}

// What a trial divides by is the sum of the hats at the point, to two rounding units, from whichever node it came.
void check_hats() {
  const int32_t weights[] = {1, 4195981, 1, 3000000};
  for (const int32_t shift : {1, 7, 13}) {
    const int32_t points = 1 << shift;
    for (int32_t node = 1; node < 3; ++node) {
      for (const int32_t offset : {1 - points, -points / 2, 0, points / 2, points - 1}) {
        // first + second - (points - 1) = offset
        const int32_t first = offset < 0 ? 0 : offset;
        const int32_t second = offset + points - 1 - first;
        const auto proposal = propose<float>(
            node, NodeWeights<int32_t>{weights[node - 1], weights[node], weights[node + 1]}, shift, first, second);
        const double share = std::abs(offset) / static_cast<double>(points);
        const double other = static_cast<double>(weights[offset < 0 ? node - 1 : node + 1]);
        const double hat = static_cast<double>(weights[node]) * (1 - share) + other * share;
        expect(proposal.point == (node << shift) + offset, "the point is the node's and the offset's", "check_hats");
        expect(std::abs(static_cast<double>(proposal.bound) / hat - 1) < 0x1.01p-23, "the bound is the hats' sum",
               "check_hats");
      }
    }
  }
}

// No operation on the way to the envelope gives a denormal, wherever the members are: some processors take longer.
void check_no_denormals() {
  for (const float at : {-1e30f, -13.0f, -8.0f, 0.0f, 5.0f, 11.0f, 13.0f, 20.0f, 33.0f, 1e30f}) {
    Problem problem({3, 1, 257, 1.0, 0.3f, 1});
    problem.lo[0] = 0.0f, problem.hi[0] = 40.0f, problem.bandwidth = 1.0f;
    for (auto& row : problem.rows) row.set(0, at);
    const KdeEmPlan plan = plan_kde_em(problem.args);
    const KdeElement in = KdeElement::at(problem.args, 0);
    const auto shape = envelope_shape(in.lo, in.hi, in.step, in.inverse, plan.envelope, 257);
    expect(shape.nodes > kGroupNodes, "there is more than one group of nodes", "check_no_denormals");
    std::vector<float> room(kNodeRoom);
    float best;
    std::feclearexcept(FE_ALL_EXCEPT);
    kde_envelope_of(in, shape, plan.envelope, plan.exponent_scale, room.data() + 2, best);
    std::vector<float> scores(257), sums(static_cast<size_t>(node_room(257)));
    std::vector<float> levels(static_cast<size_t>(2 * level_room(257)));
    expect(kde_scores_by_nodes(in, plan.nodes, scores.data(), sums.data(), levels.data(), 1, best),
           "the nodes serve the element", "check_no_denormals");
    expect(std::fetestexcept(FE_UNDERFLOW) == 0, "nothing underflows", "check_no_denormals");
  }
}

// A float that counts what is done with it.
struct Counted {
  float value = 0;
  static int64_t operations;
};
int64_t Counted::operations = 0;

Counted counted(float value) {
  ++Counted::operations;
  return {value};
}
Counted operator+(Counted a, Counted b) { return counted(a.value + b.value); }
Counted operator-(Counted a, Counted b) { return counted(a.value - b.value); }
Counted operator*(Counted a, Counted b) { return counted(a.value * b.value); }
Counted operator+(Counted a, float b) { return counted(a.value + b); }
Counted operator*(Counted a, float b) { return counted(a.value * b); }
Counted operator-(Counted a) { return counted(-a.value); }
Counted& operator+=(Counted& a, Counted b) { return a = a + b; }
bool operator<(Counted a, Counted b) { return ++Counted::operations, a.value < b.value; }
bool operator>(Counted a, Counted b) { return ++Counted::operations, a.value > b.value; }
uint32_t to_bits(Counted a) { return ++Counted::operations, privkernels::to_bits(a.value); }
Counted from_bits(uint32_t bits, Counted) { return counted(privkernels::from_bits(bits, 0.0f)); }
void load_lanes(const float* from, Counted& value) { value = counted(*from); }
void store_lanes(float* to, Counted value) { ++Counted::operations, *to = value.value; }

// How many operations the scores by nodes take, each member being one of `members` in turn.
int64_t operations_by_nodes(const std::vector<float>& members, int64_t num_members, int64_t grid_points, float step) {
  const KdeNodes nodes = make_kde_nodes(1.0, num_members, grid_points);
  int shift;
  const NodeShape<float> shape = node_shape(0.0f, 15.0f, step, static_cast<float>(kBaseTwo), nodes, shift);
  expect(shift == 3, "there are eight grid points between two nodes", "operations_by_nodes");
  const NodeShape<Counted> counted_shape{{shape.inverse},    {shape.inverse_rest}, {shape.kappa},
                                         {shape.kappa_rest}, {shape.farthest},     {shape.place}};
  const int count = node_count(nodes, node_intervals(grid_points, shift));
  std::vector<float> sums(static_cast<size_t>(node_room(grid_points)));
  std::vector<float> scores(static_cast<size_t>(grid_points));
  std::vector<float> levels(static_cast<size_t>(2 * level_room(grid_points)));
  const auto member = [&](int64_t i) { return Counted{members[static_cast<size_t>(i) % members.size()]}; };
  const auto middle = [&](int group, Counted& high, Counted& low) {
    node_middle(0.0f, step, shift, nodes, group, high.value, low.value);
  };
  Counted::operations = 0;
  sum_nodes(num_members, member, middle, counted_shape, count, sums.data(), 1);
  spread_nodes(nodes, counted_shape, shift, grid_points, sums.data(), scores.data(), levels.data(), 1);
  return Counted::operations;
}

// Up to where the nodes serve, as privkernels.ops.kde_em_accuracy has it too.
void check_limits() {
  expect(make_kde_nodes(2.0, 8192, 65).usable, "the nodes serve up to their limits", "check_limits");
  expect(!make_kde_nodes(2.0, 8193, 65).usable, "but not more members", "check_limits");
  expect(!make_kde_nodes(2.0, 8192, 64).usable, "nor fewer points", "check_limits");
  expect(!make_kde_nodes(2.0001, 8192, 65).usable, "nor a wider window", "check_limits");
  expect(make_kde_nodes(2.0, 2, 65).reach == kMostReach, "their taps fit", "check_limits");
}

// The work is the same wherever the members are.
void check_fixed_work() {
  const int64_t expected = operations_by_nodes({0.0f}, 37, 600, 0.025f);
  expect(expected > 37 * 75 * 2, "operations are counted", "check_fixed_work");
  for (const std::vector<float>& members :
       {std::vector<float>{7.5f}, {-1e30f, 1e30f}, {0.0f, 3.0f, 14.9f}, {1e-40f, -0.0f}, {-7.0f, 22.0f, 3e38f}}) {
    expect(operations_by_nodes(members, 37, 600, 0.025f) == expected, "members do not change the work",
           "check_fixed_work");
  }
}

}  // namespace
}  // namespace privkernels

int main() {
  using privkernels::by_envelope;
  using privkernels::by_nodes;
  using privkernels::check_bits;
  using privkernels::expect;
  for (const double window_ratio : {1e-6, 0.5, 1.0, 1.5, 100.0, 1e6}) {
    for (const int64_t num_elements : {1, 4, 15, 17, 40}) check_bits({9, num_elements, 33, window_ratio, 0.3f, 1});
  }
  check_bits({2, 1025, 2, 1.0, 0.3f, 3});
  check_bits({8, 33, 5, 1.0, 1e-38f, 1});
  check_bits({50, 20, 257, 2.0, 1e20f, 2});
  check_bits({3, 16, 1000, 1.0, 1e34f, 1});
  check_bits({200, 7, 64, 0.1, 1.0f, 1});
  check_bits({20, 300, 256, 1.0, 0.01f, 1});
  check_bits({5, 200, 4097, 0.7, 0.3f, 1});
  expect(by_envelope > 500, "elements are drawn by the envelope", "main");
  expect(by_nodes > 400, "elements are drawn by the nodes", "main");
  privkernels::check_failures();
  privkernels::check_hats();
  privkernels::check_no_denormals();
  privkernels::check_limits();
  privkernels::check_fixed_work();
  return privkernels::verdict();
}
