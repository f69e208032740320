// The AVX-512 build, chosen at run time; see hard_nms_avx2.cpp for why the target is set here and not by a
// flag.
#include "sigmoid_focal.h"

#ifdef DETKIT_HAS_X86
#include <cstdint>
#include <cstring>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,fma,prefer-vector-width=512")
#endif

#define DETKIT_MADD(a, b, c) __builtin_fmaf(a, b, c)
#include "sigmoid_focal_kernel.h"

namespace detkit::cpu {

double focal_sum_avx512(const float* z, int n, float gamma) { return focal_sum(z, n, gamma); }

void focal_slope_avx512(const float* z, int n, float gamma, float scale, float* out) {
  focal_slope(z, n, gamma, scale, out);
}

}  // namespace detkit::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // DETKIT_HAS_X86
