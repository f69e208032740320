// f(z) = sigmoid(z)^gamma softplus(z) and its derivative over a buffer: the face between the op
// (sigmoid_focal.cpp) and its builds.
#pragma once

#include <cstdint>

#include "capability.h"

namespace detkit::cpu {

constexpr int kFocalLanes = 16;  // buffers are padded to a multiple of this
constexpr int kFocalBuffer = 1024;
constexpr float kFocalOff = -1e4f;  // an entry that is to count for nothing: f and f' are exactly 0 there

// z: n values, n a multiple of kFocalLanes. Returns the sum of f.
using FocalSum = double(const float* z, int n, float gamma);
// out[i] = scale f'(z[i]).
using FocalSlope = void(const float* z, int n, float gamma, float scale, float* out);

FocalSum focal_sum_portable;
FocalSlope focal_slope_portable;
#ifdef DETKIT_HAS_X86
FocalSum focal_sum_avx2, focal_sum_avx512;
FocalSlope focal_slope_avx2, focal_slope_avx512;
#endif

}  // namespace detkit::cpu
