// The AVX-512 build, chosen at run time.
#if defined(__clang__)
#define DETKIT_TARGET "avx512f,fma"
#else
#define DETKIT_TARGET "avx512f,fma,prefer-vector-width=512"
#endif
#define DETKIT_BUILD(name) name##_avx512
#include "sigmoid_focal_avx.h"
