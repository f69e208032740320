// The AVX2 build of the greedy scan, chosen at run time. Never with fma: fused products round differently.
#include "hard_nms.h"

#ifdef DETKIT_HAS_X86
#define DETKIT_TARGET "avx2"
#include "target_begin.h"
// After the target.
#include "hard_nms_avx.h"

namespace detkit::cpu {

void suppress_avx2(const float* boxes, const int32_t* rows, int64_t m, double threshold, uint8_t* keep) {
  suppress_sorted<Avx<Eight>>(boxes, rows, m, threshold, keep);
}

}  // namespace detkit::cpu

#include "target_end.h"
#endif  // DETKIT_HAS_X86
