// noisy_activations for the Python modules.
#pragma once

#include <pybind11/stl.h>

#include "common.h"
#include "core/activations.h"

namespace privkernels::bindings {

// memory: addresses of input, grad (0 forwards) and output. sizes: batch, channels, positions. noise: kind, exponent.
inline NoisyActivationsArgs noisy_activations_args(
    const std::vector<uintptr_t>& memory, int format, const std::vector<int64_t>& sizes, bool channels_last,
    int clip_kind, double clip, bool is_signed, int64_t window, const std::vector<double>& normalization,
    const std::vector<int>& noise, double noise_std, uintptr_t entries, const std::vector<int>& index_bits,
    const std::vector<int64_t>& multipliers, const py::bytes& key, uint64_t first_element, uint32_t attempt) {
  NoisyActivationsArgs args{};
  const size_t tables = index_bits.size();
  if (memory.size() != 3 || sizes.size() != 3 || normalization.size() != 3 || noise.size() != 2) {
    throw py::value_error("3 addresses, 3 sizes, 3 numbers of the normalisation and 2 of the noise");
  }
  if (tables != multipliers.size() || tables > kMaxNoiseTables) {
    throw py::value_error("one multiplier for each of at most 8 tables");
  }
  args.input = reinterpret_cast<const void*>(memory[0]);
  args.grad = reinterpret_cast<const void*>(memory[1]);
  args.output = reinterpret_cast<void*>(memory[2]);
  args.format = static_cast<FloatFormat>(format);
  args.batch = sizes[0], args.channels = sizes[1], args.positions = sizes[2];
  args.channels_last = channels_last;
  args.clip_kind = static_cast<ActivationClip>(clip_kind), args.clip = clip, args.is_signed = is_signed;
  args.window = window;
  args.alpha = normalization[0], args.beta = normalization[1], args.gamma = normalization[2];
  args.noise = static_cast<ActivationNoise>(noise[0]), args.exponent = noise[1], args.noise_std = noise_std;
  args.num_tables = static_cast<int32_t>(tables);
  const uint64_t* next = reinterpret_cast<const uint64_t*>(entries);
  for (size_t t = 0; t < tables; ++t) {
    args.tables[t] = {next, multipliers[t], index_bits[t]};
    next += size_t{1} << (index_bits[t] & 31);
  }
  copy_key(key, args.key);
  args.first_element = first_element, args.attempt = attempt;
  return args;
}

#if !defined(PRIVKERNELS_CUDA_ARCHITECTURES)
inline void bind_noisy_activations_cpu(py::module_& module) {
  module.def("noisy_activations", [](const std::vector<uintptr_t>& memory, int format,
                                     const std::vector<int64_t>& sizes, bool channels_last, int clip_kind, double clip,
                                     bool is_signed, int64_t window, const std::vector<double>& normalization,
                                     const std::vector<int>& noise, double noise_std, uintptr_t entries,
                                     const std::vector<int>& index_bits, const std::vector<int64_t>& multipliers,
                                     const py::bytes& key, uint64_t first_element, uint32_t attempt, int threads) {
    const NoisyActivationsArgs args =
        noisy_activations_args(memory, format, sizes, channels_last, clip_kind, clip, is_signed, window, normalization,
                               noise, noise_std, entries, index_bits, multipliers, key, first_element, attempt);
    Status status;
    {
      const py::gil_scoped_release release;
      status = noisy_activations_cpu(args, threads);
    }
    return to_tuple(status);
  });
  // The float noise of `count` words of 32 bits, first, first + step, ..., to the memory at `out`: for tests of its
  // law.
  module.def("normal_of_bits", [](uint32_t first, uint32_t step, int64_t count, uintptr_t out) {
    float* to = reinterpret_cast<float*>(out);
    for (int64_t i = 0; i < count; ++i) to[i] = normal_of_bits(first + static_cast<uint32_t>(i) * step);
  });
}
#else
// failure: the address of a device int64 [1] holding -1.
inline void bind_noisy_activations_cuda(py::module_& module) {
  module.def("noisy_activations",
             [](const std::vector<uintptr_t>& memory, int format, const std::vector<int64_t>& sizes, bool channels_last,
                int clip_kind, double clip, bool is_signed, int64_t window, const std::vector<double>& normalization,
                const std::vector<int>& noise, double noise_std, uintptr_t entries, const std::vector<int>& index_bits,
                const std::vector<int64_t>& multipliers, const py::bytes& key, uint64_t first_element, uint32_t attempt,
                uintptr_t workspace, uintptr_t failure, int device, uintptr_t stream) {
               const NoisyActivationsArgs args = noisy_activations_args(
                   memory, format, sizes, channels_last, clip_kind, clip, is_signed, window, normalization, noise,
                   noise_std, entries, index_bits, multipliers, key, first_element, attempt);
               return to_tuple(noisy_activations_cuda(args, reinterpret_cast<double*>(workspace),
                                                      reinterpret_cast<int64_t*>(failure), device,
                                                      reinterpret_cast<void*>(stream)));
             });
  module.def("noisy_activations_workspace", [](int64_t batch, int64_t positions) {
    NoisyActivationsArgs args{};
    args.batch = batch, args.positions = positions;
    return noisy_activations_cuda_workspace(args);
  });
}
#endif

}  // namespace privkernels::bindings
