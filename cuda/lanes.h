// CPU only: a packet of W lanes by the vector extension of gcc and clang. W is the width of a 256-bit register: a wider or narrower W, or
// a struct with loops, measured 2 to 5 times slower; on AVX-512 machines 16 lanes lost to 8 by a tenth to a third (gathers).
#pragma once
#include "portable.cuh"

#ifdef _WIN32
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

#ifndef LANES
#if defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#endif

namespace infnerf {

typedef float FloatLanes __attribute__((vector_size(LANES * 4)));
typedef int IntLanes __attribute__((vector_size(LANES * 4)));
typedef u32 UnsignedLanes __attribute__((vector_size(LANES * 4)));

struct Many {
    typedef FloatLanes F;
    typedef IntLanes I;
    typedef UnsignedLanes U;
    typedef IntLanes M;  // 0 or -1, as comparisons give
    enum { W = LANES };
};

#define EACH_LANE for (int l = 0; l < LANES; l++)

DEVICE FloatLanes select(IntLanes m, FloatLanes a, FloatLanes b) {
    return (FloatLanes)((m & (IntLanes)a) | (~m & (IntLanes)b));
}
DEVICE IntLanes select(IntLanes m, IntLanes a, IntLanes b) { return (m & a) | (~m & b); }
DEVICE bool any(IntLanes m) {
    int bits = 0;
    EACH_LANE bits |= m[l];
    return bits != 0;
}
DEVICE IntLanes invert(IntLanes m) { return ~m; }
DEVICE IntLanes to_int(FloatLanes x) { return __builtin_convertvector(x, IntLanes); }
DEVICE FloatLanes to_float(IntLanes x) { return __builtin_convertvector(x, FloatLanes); }
DEVICE UnsignedLanes to_unsigned(IntLanes x) { return (UnsignedLanes)x; }
DEVICE IntLanes to_signed(UnsignedLanes x) { return (IntLanes)x; }
DEVICE IntLanes as_int(FloatLanes x) { return (IntLanes)x; }
DEVICE FloatLanes as_float(IntLanes x) { return (FloatLanes)x; }
DEVICE FloatLanes square_root(FloatLanes x) {
    EACH_LANE x[l] = __builtin_sqrtf(x[l]);
    return x;
}
DEVICE IntLanes gather(const int *p, IntLanes i) {
    IntLanes r = {};
    EACH_LANE r[l] = p[i[l]];
    return r;
}
DEVICE FloatLanes gather(const float *p, IntLanes i) {
    FloatLanes r = {};
    EACH_LANE r[l] = p[i[l]];
    return r;
}
DEVICE UnsignedLanes gather(const u32 *p, UnsignedLanes i) {
    UnsignedLanes r = {};
    EACH_LANE r[l] = p[i[l]];
    return r;
}
DEVICE float lane(FloatLanes x, int l) { return x[l]; }
DEVICE int lane(IntLanes x, int l) { return x[l]; }
DEVICE u32 lane(UnsignedLanes x, int l) { return x[l]; }
DEVICE void set_lane(FloatLanes &x, int l, float v) { x[l] = v; }
DEVICE void set_lane(IntLanes &x, int l, int v) { x[l] = v; }
DEVICE void load(FloatLanes &x, const float *p) { __builtin_memcpy(&x, p, sizeof(x)); }
DEVICE void store(float *p, FloatLanes x) { __builtin_memcpy(p, &x, sizeof(x)); }
DEVICE float sum_lanes(FloatLanes x) {
    float s = 0;
    EACH_LANE s += x[l];
    return s;
}

#undef EACH_LANE
}  // namespace infnerf
