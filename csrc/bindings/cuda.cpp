// privkernels._cuda: imports on a machine without a GPU (the CUDA runtime is linked statically).
#include <cuda_runtime_api.h>

#include "common.h"
#include "em_select.h"
#include "kmeans1d.h"
#include "mask_sum.h"
#include "noise_add.h"
#include "prune.h"
#include "randomized_response.h"

namespace privkernels::bindings {
namespace {

py::dict device_info() {
  int driver = 0, runtime = 0, count = 0;
  const cudaError_t driver_error = cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const cudaError_t count_error = cudaGetDeviceCount(&count);
  py::dict info;
  info["runtime_version"] = runtime;
  info["driver_version"] = driver_error == cudaSuccess ? driver : 0;
  info["device_count"] = count_error == cudaSuccess ? count : 0;
  info["error"] = count_error == cudaSuccess ? "" : std::string(cudaGetErrorString(count_error));
  info["architectures"] = PRIVKERNELS_CUDA_ARCHITECTURES;
  cudaGetLastError();  // asking without a driver leaves a sticky error behind
  return info;
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "CUDA kernels of privkernels; see csrc/include/privkernels for the contracts.";
  module.def("device_info", &device_info);
  bind_noise_add_cuda(module);
  bind_em_select_cuda(module);
  bind_randomized_response_cuda(module);
  bind_prune_cuda(module);
  bind_mask_sum_cuda(module);
  bind_kmeans1d_cuda(module);
  module.def("kde_em_workspace", [](int64_t num_members, int64_t num_elements, int64_t grid_points, int device) {
    KdeEmArgs args{};
    args.num_members = num_members, args.num_elements = num_elements, args.grid_points = grid_points;
    args.window_ratio = 1.0;
    return kde_em_cuda_workspace(args, device);
  });
  // members and member_strides: addresses of device arrays [M]; failure: of a device int64 [1] holding -1.
  module.def(
      "kde_em", [](uintptr_t members, uintptr_t strides, int64_t num_members, int64_t num_elements, uintptr_t lo,
                   int64_t lo_stride, uintptr_t hi, int64_t hi_stride, uintptr_t bandwidth, int64_t bandwidth_stride,
                   double window_ratio, int64_t grid_points, double multiplier, const py::bytes& key,
                   uint64_t first_element, uint32_t attempt, uintptr_t value, uintptr_t index, uintptr_t scores,
                   uintptr_t workspace, uintptr_t failure, int device, uintptr_t stream) {
        KdeEmArgs args =
            kde_em_args(num_members, num_elements, lo, lo_stride, hi, hi_stride, bandwidth, bandwidth_stride,
                        window_ratio, grid_points, multiplier, key, first_element, attempt, value, index, scores);
        args.members = reinterpret_cast<const float* const*>(members);
        args.member_strides = reinterpret_cast<const int64_t*>(strides);
        return to_tuple(kde_em_cuda(args, reinterpret_cast<float*>(workspace), reinterpret_cast<int64_t*>(failure),
                                    device, reinterpret_cast<void*>(stream)));
      });
}

}  // namespace privkernels::bindings
