// Which build of a kernel to take on this CPU.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

#if defined(__x86_64__)
#define DETKIT_HAS_X86 1
#endif

namespace detkit::cpu {

// Lanes of the float builds: 16 AVX-512, 8 AVX2 with FMA, 4 any CPU. DETKIT_CPU_CAPABILITY (default, avx2)
// asks for a lesser one than the CPU has.
inline int64_t float_lanes() {
#ifdef DETKIT_HAS_X86
  static const int64_t lanes = [] {
    const char* set = std::getenv("DETKIT_CPU_CAPABILITY");
    const std::string wanted = set ? set : "";
    if (wanted == "default" || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 4;
    return wanted == "avx2" || !__builtin_cpu_supports("avx512f") ? 8 : 16;
  }();
  return lanes;
#else
  return 4;
#endif
}

}  // namespace detkit::cpu
