// privkernels._cuda: imports on a machine without a GPU (the CUDA runtime is linked statically).
#include <cuda_runtime_api.h>

#include "common.h"
#include "em_select.h"
#include "kde_em.h"
#include "kmeans1d.h"
#include "mask_sum.h"
#include "noise_add.h"
#include "noisy_activations.h"
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
  bind_kde_em_cuda(module);
  bind_noise_add_cuda(module);
  bind_noisy_activations_cuda(module);
  bind_em_select_cuda(module);
  bind_randomized_response_cuda(module);
  bind_prune_cuda(module);
  bind_mask_sum_cuda(module);
  bind_kmeans1d_cuda(module);
}

}  // namespace privkernels::bindings
