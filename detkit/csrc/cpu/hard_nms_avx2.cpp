// The AVX2 build of the greedy scan, chosen at run time. The target is set for the functions below and not by
// a compiler flag: with a flag the inline functions of the standard headers would be AVX2 too, and the linker
// may pick that copy for code that runs on every CPU. Only avx2, never fma: fused products round differently.
#include "hard_nms.h"

#ifdef DETKIT_HAS_X86
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#include "hard_nms_avx2.h"

namespace detkit::cpu {

void suppress_avx2(const float* boxes, const int32_t* rows, int64_t m, double threshold, uint8_t* keep) {
  suppress_sorted<Avx2>(boxes, rows, m, threshold, keep);
}

}  // namespace detkit::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // DETKIT_HAS_X86
