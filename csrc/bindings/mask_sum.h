// mask_sum for the Python modules.
#pragma once

#include "common.h"
#include "privkernels/mask_sum.h"

namespace privkernels::bindings {

inline MaskSumArgs mask_sum_args(uintptr_t values, bool wide, int64_t num_elements, uintptr_t seeds, uintptr_t signs,
                                 int64_t num_seeds, uint32_t round, uint64_t first_element) {
  return {reinterpret_cast<void*>(values),        wide,      num_elements, reinterpret_cast<const uint8_t*>(seeds),
          reinterpret_cast<const int8_t*>(signs), num_seeds, round,        first_element};
}

inline void bind_mask_sum_cpu(py::module_& module) {
  module.def("mask_sum", [](uintptr_t values, bool wide, int64_t num_elements, uintptr_t seeds, uintptr_t signs,
                            int64_t num_seeds, uint32_t round, uint64_t first_element, int threads) {
    const MaskSumArgs args = mask_sum_args(values, wide, num_elements, seeds, signs, num_seeds, round, first_element);
    Status status;
    {
      const py::gil_scoped_release release;
      status = mask_sum_cpu(args, threads);
    }
    return to_tuple(status);
  });
}

inline void bind_mask_sum_cuda(py::module_& module) {
  module.def("mask_sum", [](uintptr_t values, bool wide, int64_t num_elements, uintptr_t seeds, uintptr_t signs,
                            int64_t num_seeds, uint32_t round, uint64_t first_element, int device, uintptr_t stream) {
    const MaskSumArgs args = mask_sum_args(values, wide, num_elements, seeds, signs, num_seeds, round, first_element);
    return to_tuple(mask_sum_cuda(args, device, reinterpret_cast<void*>(stream)));
  });
}

}  // namespace privkernels::bindings
