// The binding of noise_add, for both modules.
#pragma once

#include <pybind11/stl.h>

#include "common.h"
#include "core/noise.h"

namespace privkernels::bindings {

// Everything but the memory of input, output and steps.
inline NoiseAddArgs noise_add_args(int format, int64_t num_elements, int exponent, bool gaussian, uintptr_t entries,
                                   const std::vector<int>& index_bits, const std::vector<int64_t>& multipliers,
                                   const py::bytes& key, uint64_t first_element) {
  NoiseAddArgs args{};
  if (index_bits.size() != multipliers.size() || index_bits.size() > kMaxNoiseTables) {
    throw py::value_error("one multiplier for each of at most 8 tables");
  }
  args.format = static_cast<FloatFormat>(format);
  args.num_elements = num_elements;
  args.exponent = exponent;
  args.distribution = gaussian ? NoiseDistribution::kGaussian : NoiseDistribution::kLaplace;
  args.num_tables = static_cast<int32_t>(index_bits.size());
  const uint64_t* next = reinterpret_cast<const uint64_t*>(entries);
  for (size_t t = 0; t < index_bits.size(); ++t) {
    args.tables[t] = {next, multipliers[t], index_bits[t]};
    next += size_t{1} << (index_bits[t] & 31);
  }
  copy_key(key, args.key);
  args.first_element = first_element;
  return args;
}

#if !defined(PRIVKERNELS_CUDA_ARCHITECTURES)
inline void bind_noise_add_cpu(py::module_& module) {
  module.def("noise_add", [](int format, int64_t num_elements, int exponent, bool gaussian, uintptr_t entries,
                             const std::vector<int>& index_bits, const std::vector<int64_t>& multipliers,
                             const py::bytes& key, uint64_t first_element, uintptr_t input, uintptr_t output,
                             uintptr_t steps, int threads) {
    NoiseAddArgs args =
        noise_add_args(format, num_elements, exponent, gaussian, entries, index_bits, multipliers, key, first_element);
    args.input = reinterpret_cast<const void*>(input);
    args.output = reinterpret_cast<void*>(output);
    args.steps = reinterpret_cast<int64_t*>(steps);
    Status status;
    {
      const py::gil_scoped_release release;
      status = noise_add_cpu(args, threads);
    }
    return to_tuple(status);
  });
  module.def("spread_bits", [](const py::bytes& key, uint64_t element, uint32_t draw, uint32_t purpose) {
    const std::string secret = key;
    if (secret.size() != 32) throw py::value_error("a key has 32 bytes");
    uint32_t words[8];
    std::memcpy(words, secret.data(), sizeof words);
    return spread_bits(words, element, draw, purpose);
  });
  // K from given words, one for each table: for tests of single words.
  module.def("noise_of_words",
             [](bool gaussian, const std::vector<uint64_t>& entries, const std::vector<int>& index_bits,
                const std::vector<int64_t>& multipliers, const std::vector<uint64_t>& words) {
               const NoiseAddArgs args = noise_add_args(0, 0, 0, gaussian, reinterpret_cast<uintptr_t>(entries.data()),
                                                        index_bits, multipliers, py::bytes(std::string(32, '\0')), 0);
               size_t size = 0;
               for (const int bits : index_bits) size += size_t{1} << (bits & 31);
               if (size != entries.size() || words.size() != index_bits.size())
                 throw py::value_error("sizes do not fit");
               int64_t noise = 0;
               for (int t = 0; t < args.num_tables; ++t) {
                 const uint64_t word = words[static_cast<size_t>(t)];
                 const bool last = t == args.num_tables - 1;
                 noise = gaussian ? add_table<NoiseDistribution::kGaussian>(noise, word, args.tables[t], last)
                                  : add_table<NoiseDistribution::kLaplace>(noise, word, args.tables[t], last);
               }
               return noise;
             });
}
#else
// failure: address of a device int64 [1] holding -1.
inline void bind_noise_add_cuda(py::module_& module) {
  module.def("noise_add", [](int format, int64_t num_elements, int exponent, bool gaussian, uintptr_t entries,
                             const std::vector<int>& index_bits, const std::vector<int64_t>& multipliers,
                             const py::bytes& key, uint64_t first_element, uintptr_t input, uintptr_t output,
                             uintptr_t steps, uintptr_t failure, int device, uintptr_t stream) {
    NoiseAddArgs args =
        noise_add_args(format, num_elements, exponent, gaussian, entries, index_bits, multipliers, key, first_element);
    args.input = reinterpret_cast<const void*>(input);
    args.output = reinterpret_cast<void*>(output);
    args.steps = reinterpret_cast<int64_t*>(steps);
    return to_tuple(noise_add_cuda(args, reinterpret_cast<int64_t*>(failure), device, reinterpret_cast<void*>(stream)));
  });
}
#endif

}  // namespace privkernels::bindings
