// randomized_response for the Python modules.
#pragma once

#include "common.h"
#include "privkernels/randomized_response.h"

namespace privkernels::bindings {

inline RandomizedResponseArgs randomized_response_args(uintptr_t values, int64_t stride, int64_t num_elements,
                                                       int64_t categories, uint64_t threshold, const py::bytes& key,
                                                       uint64_t first_element, uintptr_t out) {
  RandomizedResponseArgs args{};
  args.values = reinterpret_cast<const int64_t*>(values);
  args.stride = stride;
  args.num_elements = num_elements;
  args.categories = categories;
  args.threshold = threshold;
  copy_key(key, args.key);
  args.first_element = first_element;
  args.out = reinterpret_cast<int64_t*>(out);
  return args;
}

inline void bind_randomized_response_cpu(py::module_& module) {
  module.def("randomized_response", [](uintptr_t values, int64_t stride, int64_t num_elements, int64_t categories,
                                       uint64_t threshold, const py::bytes& key, uint64_t first_element, uintptr_t out,
                                       int threads) {
    const RandomizedResponseArgs args =
        randomized_response_args(values, stride, num_elements, categories, threshold, key, first_element, out);
    Status status;
    {
      const py::gil_scoped_release release;
      status = randomized_response_cpu(args, threads);
    }
    return to_tuple(status);
  });
}

// failure: the address of a device int64 [1] holding -1.
inline void bind_randomized_response_cuda(py::module_& module) {
  module.def("randomized_response", [](uintptr_t values, int64_t stride, int64_t num_elements, int64_t categories,
                                       uint64_t threshold, const py::bytes& key, uint64_t first_element, uintptr_t out,
                                       uintptr_t failure, int device, uintptr_t stream) {
    const RandomizedResponseArgs args =
        randomized_response_args(values, stride, num_elements, categories, threshold, key, first_element, out);
    return to_tuple(
        randomized_response_cuda(args, reinterpret_cast<int64_t*>(failure), device, reinterpret_cast<void*>(stream)));
  });
}

}  // namespace privkernels::bindings
