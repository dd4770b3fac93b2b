// A warp's code, written once: EACH_LANE blocks with collectives between them. On CUDA a lane is a thread and a Var<T> its register; on the
// CPU (an emulation, for tests) a Var<T> is 32 values and EACH_LANE a loop. Only this file knows how mma.m16n8k16, c += a b, deals its
// matrices out to lanes. A word holds two half numbers, the lower index in the lower bits. Lane l = 4 g + t holds
//   of a [16 x 16]  words 0, 1: columns 2t, 2t + 1 of rows g, g + 8;  words 2, 3: columns 2t + 8, 2t + 9 of the same
//   of b [16 x 8]   word 0: rows 2t, 2t + 1 of column g;  word 1: rows 2t + 8, 2t + 9
//   of c [16 x 8]   numbers 0, 1: columns 2t, 2t + 1 of row g;  2, 3: of row g + 8 (float)
// (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type").
#pragma once
#include "packet.cuh"

namespace infnerf {

constexpr int WARP = 32;

#ifdef __CUDACC__
template <class T> struct Var {
    T own;
    __device__ __forceinline__ T &operator[](int) { return own; }
    __device__ __forceinline__ const T &operator[](int) const { return own; }
};
#define EACH_LANE(l) if (const int l = threadIdx.x % WARP; true)
DEVICE void sync_warp() { __syncwarp(); }
#else
template <class T> struct Var {
    T of_lane[WARP];
    T &operator[](int l) { return of_lane[l]; }
    const T &operator[](int l) const { return of_lane[l]; }
};
#define EACH_LANE(l) for (int l = 0; l < WARP; l++)
DEVICE void sync_warp() {}
#endif

// The same as functions: word row + 2 * pair of a is row_of(l, row), columns input_of(l, 2 * pair) and on; word pair of b the same as rows;
// number 2 * row + i of c is column output_of(l, i).
DEVICE int row_of(int l, int row) { return l / 4 + 8 * row; }
DEVICE int input_of(int l, int i) { return 2 * (l % 4) + i % 2 + 8 * (i / 2); }
DEVICE int output_of(int l, int i) { return 2 * (l % 4) + i; }
DEVICE int weights_column_of(int l) { return l / 4; }
// Inputs may change places where a and b agree: the four that a lane holds may as well be inputs 4 * quarter_of(l) to + 3.
DEVICE int quarter_of(int l) { return l % 4; }

// x as a half number, rounded to nearest even, at most 65504 in size: an overflow would meet a weight of zero as NaN.
DEVICE u32 pack(float low, float high) {
    const float most = 65504.0f;
    low = smaller(larger(low, -most), most), high = smaller(larger(high, -most), most);
#ifdef __CUDACC__
    u32 word;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
#else
    asm("{.reg .f16 low, high; cvt.rn.f16.f32 low, %1; cvt.rn.f16.f32 high, %2; mov.b32 %0, {low, high};}"
        : "=r"(word) : "f"(low), "f"(high));
#endif
    return word;
#else
    const float both[2] = {low, high};
    u32 bits[2];
    for (int i = 0; i < 2; i++) {
        const u32 sign = (u32)as_int(both[i]) >> 16 & 0x8000, size = as_int(both[i]) & 0x7fffffff;
        if (size < 0x38800000u)  // below 2**-14 halves are 2**-24 apart, as floats are beside 0.5
            bits[i] = sign | (u32)(as_int(as_float((int)size) + 0.5f) - as_int(0.5f));
        else
            bits[i] = sign | (size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13;
    }
    return bits[0] | bits[1] << 16;
#endif
}

#ifdef __CUDACC__
DEVICE void unpack(u32 word, float &low, float &high) {
    asm("{.reg .f16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high;}"
        : "=f"(low), "=f"(high) : "r"(word));
}
#else
DEVICE void unpack(u32 word, float &low, float &high) {
    low = lower_half<One>(word) * HALF_SCALE, high = upper_half<One>(word) * HALF_SCALE;
}
#endif

// Each lane gets x of lane `from`.
template <class T> DEVICE Var<T> shuffle(const Var<T> &x, const Var<int> &from) {
#ifdef __CUDACC__
    return {__shfl_sync(0xffffffffu, x.own, from.own)};
#else
    Var<T> result;
    EACH_LANE(l) result[l] = x[from[l]];
    return result;
#endif
}

#ifdef __CUDACC__
#if __CUDA_ARCH__ >= 800
DEVICE void mma(Var<float> (&c)[4], const Var<u32> (&a)[4], const Var<u32> (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0].own), "+f"(c[1].own), "+f"(c[2].own), "+f"(c[3].own)
                 : "r"(a[0].own), "r"(a[1].own), "r"(a[2].own), "r"(a[3].own), "r"(b[0].own), "r"(b[1].own));
}
#else
DEVICE void mma_k8(Var<float> (&c)[4], u32 a0, u32 a1, u32 b) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0].own), "+f"(c[1].own), "+f"(c[2].own), "+f"(c[3].own) : "r"(a0), "r"(a1), "r"(b));
}
DEVICE void mma(Var<float> (&c)[4], const Var<u32> (&a)[4], const Var<u32> (&b)[2]) {  // inputs 0 to 7, then 8 to 15
    mma_k8(c, a[0].own, a[1].own, b[0].own);
    mma_k8(c, a[2].own, a[3].own, b[1].own);
}
#endif
#else
static inline void mma(Var<float> (&c)[4], const Var<u32> (&a)[4], const Var<u32> (&b)[2]) {
    float full_a[16][16], full_b[16][8];
    EACH_LANE(l) {
        const int g = l >> 2, t = l & 3;
        for (int i = 0; i < 8; i += 2) {  // halves 0 to 7 of a, as the manual counts them
            const int row = i % 4 < 2 ? g : g + 8, column = 2 * t + (i < 4 ? 0 : 8);
            unpack(a[i / 2][l], full_a[row][column], full_a[row][column + 1]);
        }
        for (int i = 0; i < 4; i += 2) {
            const int row = 2 * t + (i < 2 ? 0 : 8);
            unpack(b[i / 2][l], full_b[row][g], full_b[row + 1][g]);
        }
    }
    EACH_LANE(l) {
        const int g = l >> 2, t = l & 3;
        for (int i = 0; i < 4; i++) {
            const int row = i < 2 ? g : g + 8, column = 2 * t + (i & 1);
            for (int k = 0; k < 16; k++) c[i][l] += full_a[row][k] * full_b[k][column];
        }
    }
}
#endif

// Sixteen columns of sums (c of two products) become one layer's inputs (a of the next): every number stays in its lane.
template <bool RELU> DEVICE void as_inputs(const Var<float> (&c)[2][4], Var<u32> (&a)[4]) {
    EACH_LANE(l)
        UNROLL for (int row = 0; row < 2; row++)
            UNROLL for (int pair = 0; pair < 2; pair++) {
                const float low = c[pair][2 * row][l], high = c[pair][2 * row + 1][l];
                a[row + 2 * pair][l] = RELU ? pack(larger(low, 0.0f), larger(high, 0.0f)) : pack(low, high);
            }
}

// mma on fragments that lie in memory as lanes hold them, a [4, 32], b [2, 32], c [4, 32] +=: for tests, here and on a GPU.
DEVICE void mma_of_words(const u32 *a, const u32 *b, float *c) {
    Var<u32> words[4], weights[2];
    Var<float> sums[4];
    EACH_LANE(l) {
        for (int i = 0; i < 4; i++) words[i][l] = a[i * WARP + l], sums[i][l] = c[i * WARP + l];
        for (int i = 0; i < 2; i++) weights[i][l] = b[i * WARP + l];
    }
    mma(sums, words, weights);
    EACH_LANE(l)
        for (int i = 0; i < 4; i++) c[i * WARP + l] = sums[i][l];
}

}  // namespace infnerf
