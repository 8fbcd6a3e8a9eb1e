// How a kernel says what went wrong. Kernels never throw, print or exit.
#pragma once

#include <cstdint>

namespace privkernels {

enum class StatusCode : int32_t {
  kOk = 0,
  kInvalidArgument = 1,   // `message` says which
  kNonFinite = 2,         // NaN or infinity in member `member`, element `element`
  kInvalidParameter = 3,  // lo, hi or bandwidth of element `element` is not usable
  kCudaError = 4,         // `message` is the CUDA runtime's
};

struct Status {
  StatusCode code = StatusCode::kOk;
  int64_t member = -1;
  int64_t element = -1;
  const char* message = "";  // static storage
};

}  // namespace privkernels
