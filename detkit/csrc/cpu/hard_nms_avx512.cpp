// The AVX-512 build of the greedy scan, chosen at run time.
#include "hard_nms.h"

#ifdef DETKIT_HAS_X86
#define DETKIT_TARGET "avx512f"
#include "target_begin.h"
// After the target.
#include "hard_nms_avx.h"

namespace {

struct Sixteen {
  using Floats = __m512;
  using Mask = __mmask16;
  static constexpr int width = 16;
  static Floats load(const float* p) { return _mm512_loadu_ps(p); }
  static Floats all(float x) { return _mm512_set1_ps(x); }
  static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
  static Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
  static Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
  static Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
  static Mask at_least(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
  static Mask above(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static Mask either(Mask a, Mask b) { return a | b; }
  static bool any(Mask m) { return m != 0; }
};

}  // namespace

namespace detkit::cpu {

void suppress_avx512(const float* boxes, const int32_t* rows, int64_t m, double threshold, uint8_t* keep) {
  suppress_sorted<Avx<Sixteen>>(boxes, rows, m, threshold, keep);
}

}  // namespace detkit::cpu

#include "target_end.h"
#endif  // DETKIT_HAS_X86
