// Any CPU.
#define DETKIT_MADD(a, b, c) ((a) * (b) + (c))
#include "sigmoid_focal_kernel.h"

namespace detkit::cpu {

double focal_sum_portable(const float* z, int n, float gamma) { return focal_sum(z, n, gamma); }

void focal_slope_portable(const float* z, int n, float gamma, float scale, float* out) {
  focal_slope(z, n, gamma, scale, out);
}

}  // namespace detkit::cpu
