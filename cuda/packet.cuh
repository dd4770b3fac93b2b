// Small maths over a packet type: the same polynomials on CPU and GPU, so that twins agree.
#pragma once
#include "portable.cuh"
#ifndef __CUDACC__
#include "lanes.h"
#endif

namespace infnerf {

template <class T> DEVICE T smaller(T a, T b) { return select(a < b, a, b); }
template <class T> DEVICE T larger(T a, T b) { return select(a > b, a, b); }
template <class P> DEVICE typename P::F all_f(float x) { return typename P::F{} + x; }
template <class P> DEVICE typename P::I all_i(int x) { return typename P::I{} + x; }
template <class P> DEVICE typename P::M none() { return all_i<P>(0) != 0; }

// 2**x, relative error below 1e-7 * (1 + |x|); the same polynomial on every machine, so that twins agree.
template <class P> DEVICE typename P::F exp2_of(typename P::F x) {
    typedef typename P::F F;
    typedef typename P::I I;
    x = larger<F>(smaller<F>(x, all_f<P>(126.0f)), all_f<P>(-126.0f));
    const I i = to_int(x + 126.5f) - 126;  // nearest, x + 126.5 is never negative
    const F f = (x - to_float(i)) * 0.693147180560f;
    F y = f * (1.0f / 5040) + 1.0f / 720;
    y = y * f + 1.0f / 120;
    y = y * f + 1.0f / 24;
    y = y * f + 1.0f / 6;
    y = y * f + 0.5f;
    y = y * f + 1.0f;
    y = y * f + 1.0f;
    return y * as_float((i + 127) << 23);
}

template <class P> DEVICE typename P::F exp_of(typename P::F x) { return exp2_of<P>(x * 1.44269504089f); }

// floor(log2(x)) of a positive normal number, exact
template <class P> DEVICE typename P::I floor_log2(typename P::F x) { return (as_int(x) >> 23) - 127; }

// log2(x) of a positive normal number: atanh series about sqrt(2), absolute error below 1e-7
template <class P> DEVICE typename P::F log2_of(typename P::F x) {
    typedef typename P::F F;
    const F m = as_float((as_int(x) & 0x7fffff) | 0x3f800000);
    const F z = (m - 1.41421356237f) / (m + 1.41421356237f);
    const F q = z * z;
    const F series = (((q * (1.0f / 9) + 1.0f / 7) * q + 0.2f) * q + 1.0f / 3) * q + 1.0f;
    return to_float(floor_log2<P>(x)) + 0.5f + z * series * 2.88539008178f;
}

// log2(1 + x) for x in [0, 1], relative error below 2e-7 however small x is (log2_of loses the digits of x beside 1)
template <class P> DEVICE typename P::F log2_1p(typename P::F x) {
    typedef typename P::F F;
    const F z = x / (x + 2.0f), q = z * z;
    const F series = ((((q * (1.0f / 11) + 1.0f / 9) * q + 1.0f / 7) * q + 0.2f) * q + 1.0f / 3) * q + 1.0f;
    return z * series * 2.88539008178f;
}

// A uniform number in [0, 1) from three counters (a murmur finaliser over their mix): frames are reproducible.
template <class P> DEVICE typename P::F random_of(typename P::U pixel, typename P::U sample, u32 frame) {
    typename P::U h = pixel * 0x9E3779B1u ^ sample * 0x85EBCA6Bu ^ (frame * 0xC2B2AE35u + 0x27D4EB2Fu);
    h ^= h >> 16;
    h *= 0x85EBCA6Bu;
    h ^= h >> 13;
    h *= 0xC2B2AE35u;
    h ^= h >> 16;
    return to_float(to_signed(h >> 8)) * (1.0f / 16777216);
}

// A half number in the upper 16 bits of a word, as a float times 2**-112: one shift and one mask. Who uses it multiplies by
// HALF_SCALE somewhere cheap. Infinities and NaN are refused when a checkpoint loads.
template <class P> DEVICE typename P::F upper_half(typename P::U word) {
    return as_float((to_signed(word) >> 3) & (int)0x8fffe000);
}
template <class P> DEVICE typename P::F lower_half(typename P::U word) { return upper_half<P>(word << 16); }
constexpr float HALF_SCALE = 5.192296858534828e33f;  // 2**112

}  // namespace infnerf
