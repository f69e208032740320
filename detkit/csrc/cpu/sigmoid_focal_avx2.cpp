// The AVX2 build, chosen at run time.
#define DETKIT_TARGET "avx2,fma"
#define DETKIT_BUILD(name) name##_avx2
#include "sigmoid_focal_avx.h"
