// One of the builds for x86: the including file sets DETKIT_TARGET and DETKIT_BUILD(name).
#include "sigmoid_focal.h"

#ifdef DETKIT_HAS_X86
#include "target_begin.h"
#define DETKIT_MADD(a, b, c) __builtin_fmaf(a, b, c)
#include "sigmoid_focal_kernel.h"

namespace detkit::cpu {

double DETKIT_BUILD(focal_sum)(const float* z, int n, float gamma) { return focal_sum(z, n, gamma); }

void DETKIT_BUILD(focal_slope)(const float* z, int n, float gamma, float scale, float* out) {
  focal_slope(z, n, gamma, scale, out);
}

}  // namespace detkit::cpu

#include "target_end.h"
#endif  // DETKIT_HAS_X86
