// The floating-point formats that kernels take, numbered as privkernels.ops._memory.FORMATS does.
#pragma once

#include <cstdint>

namespace privkernels {

enum class FloatFormat : int32_t { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2, kFloat64 = 3 };

}  // namespace privkernels
