// Which instruction sets were compiled, which this machine has, and which one is used.
#pragma once

namespace privkernels {

enum class Isa : int { kBase = 0, kAvx2 = 1, kAvx512 = 2 };
constexpr int kIsaCount = 3;
constexpr int kMaxLanes = 16;

const char* isa_name(Isa isa);
bool isa_compiled(Isa isa);
bool isa_supported(Isa isa);  // compiled, and this processor and its operating system have it

// The best supported one, or the one named by PRIVKERNELS_ISA (base, avx2, avx512), read once.
// Null and a reason when the name is unknown or names what this machine lacks.
const Isa* chosen_isa(const char** reason);

}  // namespace privkernels
