#include "isa.h"

#include <cstdlib>
#include <cstring>
#include <string>

namespace privkernels {

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kBase: return "base";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
  }
  return "unknown";
}

bool isa_compiled(Isa isa) {
#if defined(PRIVKERNELS_X86)
  (void)isa;
  return true;
#else
  return isa == Isa::kBase;
#endif
}

bool isa_supported(Isa isa) {
#if defined(PRIVKERNELS_X86)
  __builtin_cpu_init();
  switch (isa) {
    case Isa::kBase: return true;
    case Isa::kAvx2: return __builtin_cpu_supports("avx2");
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  }
  return false;
#else
  return isa == Isa::kBase;
#endif
}

namespace {

struct Choice {
  Isa isa = Isa::kBase;
  bool valid = true;
  std::string reason;
};

Choice choose() {
  Choice choice;
  const char* forced = std::getenv("PRIVKERNELS_ISA");
  if (forced == nullptr || *forced == '\0') {
    for (int i = 0; i < kIsaCount; ++i) {
      if (isa_supported(static_cast<Isa>(i))) choice.isa = static_cast<Isa>(i);
    }
    return choice;
  }
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (std::strcmp(forced, isa_name(isa)) != 0) continue;
    choice.isa = isa;
    choice.valid = isa_supported(isa);
    if (!choice.valid) {
      choice.reason = std::string("PRIVKERNELS_ISA=") + forced + ", but this " +
                      (isa_compiled(isa) ? "processor does not have it" : "build does not contain it");
    }
    return choice;
  }
  choice.valid = false;
  choice.reason = std::string("PRIVKERNELS_ISA=") + forced + " is not one of base, avx2, avx512";
  return choice;
}

}  // namespace

const Isa* chosen_isa(const char** reason) {
  static const Choice choice = choose();
  if (reason != nullptr) *reason = choice.reason.c_str();
  return choice.valid ? &choice.isa : nullptr;
}

}  // namespace privkernels
