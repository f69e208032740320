// What follows, up to target_end.h, is compiled for the instructions in DETKIT_TARGET. The target is set for
// these functions and not by a compiler flag: with a flag the inline functions of the standard headers would
// be compiled for it too, and the linker may pick that copy for code that runs on every CPU. So those headers
// come first.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#define DETKIT_EXPANDED_PRAGMA(text) _Pragma(#text)
#define DETKIT_PRAGMA(text) DETKIT_EXPANDED_PRAGMA(text)

#if defined(__clang__)
DETKIT_PRAGMA(clang attribute push(__attribute__((target(DETKIT_TARGET))), apply_to = function))
#else
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12 warns of its own avx512fintrin.h
#pragma GCC push_options
DETKIT_PRAGMA(GCC target(DETKIT_TARGET))
#endif
