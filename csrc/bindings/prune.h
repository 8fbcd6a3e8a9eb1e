// prune for the Python modules.
#pragma once

#include <pybind11/stl.h>

#include "common.h"
#include "privkernels/prune.h"

namespace privkernels::bindings {

// Keeps the segments alive while they are used.
struct PruneMaskCall {
  std::vector<PruneSegment> segments;
  PruneMaskArgs args{};

  PruneMaskCall(const std::vector<uintptr_t>& scores, const std::vector<int64_t>& strides,
                const std::vector<int64_t>& sizes, const std::vector<uintptr_t>& outputs, int format, bool magnitude,
                int64_t keep, int output, uintptr_t threshold) {
    if (scores.size() != strides.size() || scores.size() != sizes.size() || scores.size() != outputs.size()) {
      throw py::value_error("one address, stride, size and output for each segment");
    }
    for (size_t s = 0; s < scores.size(); ++s) {
      segments.push_back(
          {reinterpret_cast<const void*>(scores[s]), strides[s], sizes[s], reinterpret_cast<void*>(outputs[s])});
    }
    args.segments = segments.data();
    args.num_segments = static_cast<int64_t>(segments.size());
    args.format = static_cast<FloatFormat>(format);
    args.magnitude = magnitude;
    args.keep = keep;
    args.output = static_cast<PruneOutput>(output);
    args.threshold = reinterpret_cast<void*>(threshold);
  }
  PruneMaskCall(const PruneMaskCall&) = delete;
  PruneMaskCall& operator=(const PruneMaskCall&) = delete;
};

inline PrunePatternArgs prune_pattern_args(uintptr_t scores, int64_t outer, int64_t length, int64_t inner, int64_t n,
                                           int64_t m, int format, uintptr_t mask) {
  return {reinterpret_cast<const void*>(scores), outer, length, inner, n, m, static_cast<FloatFormat>(format),
          reinterpret_cast<uint8_t*>(mask)};
}

inline PruneRandomArgs prune_random_args(uintptr_t importance, int64_t stride, int64_t size, int format, double low,
                                         double high, const py::bytes& key, uint64_t first_element, uintptr_t mask) {
  PruneRandomArgs args{};
  args.importance = reinterpret_cast<const void*>(importance);
  args.stride = stride, args.size = size;
  args.format = static_cast<FloatFormat>(format);
  args.low = low, args.high = high;
  copy_key(key, args.key);
  args.first_element = first_element;
  args.mask = reinterpret_cast<uint8_t*>(mask);
  return args;
}

inline PruneApplyArgs prune_apply_args(uintptr_t values, int64_t size, int element_bytes, uintptr_t mask, bool bits) {
  return {reinterpret_cast<void*>(values), size, element_bytes, reinterpret_cast<const uint8_t*>(mask), bits};
}

inline void bind_prune_cpu(py::module_& module) {
  module.def("prune_mask", [](const std::vector<uintptr_t>& scores, const std::vector<int64_t>& strides,
                              const std::vector<int64_t>& sizes, const std::vector<uintptr_t>& outputs, int format,
                              bool magnitude, int64_t keep, int output, uintptr_t threshold, int threads) {
    const PruneMaskCall call(scores, strides, sizes, outputs, format, magnitude, keep, output, threshold);
    Status status;
    {
      const py::gil_scoped_release release;
      status = prune_mask_cpu(call.args, threads);
    }
    return to_tuple(status);
  });
  module.def("prune_pattern", [](uintptr_t scores, int64_t outer, int64_t length, int64_t inner, int64_t n, int64_t m,
                                 int format, uintptr_t mask, int threads) {
    const PrunePatternArgs args = prune_pattern_args(scores, outer, length, inner, n, m, format, mask);
    Status status;
    {
      const py::gil_scoped_release release;
      status = prune_pattern_cpu(args, threads);
    }
    return to_tuple(status);
  });
  module.def("prune_random", [](uintptr_t importance, int64_t stride, int64_t size, int format, double low, double high,
                                const py::bytes& key, uint64_t first_element, uintptr_t mask, int threads) {
    const PruneRandomArgs args =
        prune_random_args(importance, stride, size, format, low, high, key, first_element, mask);
    Status status;
    {
      const py::gil_scoped_release release;
      status = prune_random_cpu(args, threads);
    }
    return to_tuple(status);
  });
  module.def("prune_apply",
             [](uintptr_t values, int64_t size, int element_bytes, uintptr_t mask, bool bits, int threads) {
               const PruneApplyArgs args = prune_apply_args(values, size, element_bytes, mask, bits);
               Status status;
               {
                 const py::gil_scoped_release release;
                 status = prune_apply_cpu(args, threads);
               }
               return to_tuple(status);
             });
}

#if defined(PRIVKERNELS_CUDA_ARCHITECTURES)
inline void bind_prune_cuda(py::module_& module) {
  module.def("prune_mask_workspace", [](const std::vector<int64_t>& sizes, int format) {
    const std::vector<uintptr_t> addresses(sizes.size());
    const std::vector<int64_t> strides(sizes.size(), 1);
    const PruneMaskCall call(addresses, strides, sizes, addresses, format, true, 0, 0, 0);
    return prune_mask_workspace(call.args);
  });
  module.def("prune_mask", [](const std::vector<uintptr_t>& scores, const std::vector<int64_t>& strides,
                              const std::vector<int64_t>& sizes, const std::vector<uintptr_t>& outputs, int format,
                              bool magnitude, int64_t keep, int output, uintptr_t threshold, uintptr_t workspace,
                              uintptr_t failure, int device, uintptr_t stream) {
    const PruneMaskCall call(scores, strides, sizes, outputs, format, magnitude, keep, output, threshold);
    return to_tuple(prune_mask_cuda(call.args, reinterpret_cast<void*>(workspace), reinterpret_cast<int64_t*>(failure),
                                    device, reinterpret_cast<void*>(stream)));
  });
  module.def("prune_pattern", [](uintptr_t scores, int64_t outer, int64_t length, int64_t inner, int64_t n, int64_t m,
                                 int format, uintptr_t mask, uintptr_t failure, int device, uintptr_t stream) {
    return to_tuple(prune_pattern_cuda(prune_pattern_args(scores, outer, length, inner, n, m, format, mask),
                                       reinterpret_cast<int64_t*>(failure), device, reinterpret_cast<void*>(stream)));
  });
  module.def("prune_random", [](uintptr_t importance, int64_t stride, int64_t size, int format, double low, double high,
                                const py::bytes& key, uint64_t first_element, uintptr_t mask, uintptr_t failure,
                                int device, uintptr_t stream) {
    return to_tuple(
        prune_random_cuda(prune_random_args(importance, stride, size, format, low, high, key, first_element, mask),
                          reinterpret_cast<int64_t*>(failure), device, reinterpret_cast<void*>(stream)));
  });
  module.def("prune_apply", [](uintptr_t values, int64_t size, int element_bytes, uintptr_t mask, bool bits, int device,
                               uintptr_t stream) {
    return to_tuple(prune_apply_cuda(prune_apply_args(values, size, element_bytes, mask, bits), device,
                                     reinterpret_cast<void*>(stream)));
  });
}
#endif

}  // namespace privkernels::bindings
