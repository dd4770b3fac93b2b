// The only file that knows the compiler. Everything else is written over a packet type P with
//   P::F float, P::I int, P::U u32, P::M mask, P::W lanes.
// One (here) is one ray or one sample a CUDA thread; Many (lanes.h, CPU only) is W of them in SIMD registers.
#pragma once

#ifdef __CUDACC__
#define DEVICE __device__ __forceinline__
#define MEMBER __device__ __forceinline__ static
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")
#define UNROLL_BY_4 _Pragma("unroll 4")
#else
#define DEVICE static inline __attribute__((always_inline))
#define MEMBER static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define NO_UNROLL
#else
#define UNROLL _Pragma("GCC unroll 8")
#define NO_UNROLL
#endif
#define UNROLL_BY_4
#endif

namespace infnerf {

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

struct One {
    typedef float F;
    typedef int I;
    typedef u32 U;
    typedef bool M;
    enum { W = 1 };
};

DEVICE float select(bool m, float a, float b) { return m ? a : b; }
DEVICE int select(bool m, int a, int b) { return m ? a : b; }
DEVICE bool any(bool m) { return m; }
DEVICE bool invert(bool m) { return !m; }
DEVICE int to_int(float x) { return (int)x; }  // towards zero
DEVICE float to_float(int x) { return (float)x; }
DEVICE u32 to_unsigned(int x) { return (u32)x; }
DEVICE int to_signed(u32 x) { return (int)x; }
#ifdef __CUDACC__
DEVICE int as_int(float x) { return __float_as_int(x); }
DEVICE float as_float(int x) { return __int_as_float(x); }
DEVICE float square_root(float x) { return sqrtf(x); }
#else
DEVICE int as_int(float x) { return __builtin_bit_cast(int, x); }
DEVICE float as_float(int x) { return __builtin_bit_cast(float, x); }
DEVICE float square_root(float x) { return __builtin_sqrtf(x); }
#endif
DEVICE int gather(const int *p, int i) { return p[i]; }
DEVICE float gather(const float *p, int i) { return p[i]; }
DEVICE u32 gather(const u32 *p, u32 i) { return p[i]; }
DEVICE float lane(float x, int) { return x; }
DEVICE int lane(int x, int) { return x; }
DEVICE u32 lane(u32 x, int) { return x; }
DEVICE bool lane(bool x, int) { return x; }
DEVICE void set_lane(float &x, int, float v) { x = v; }
DEVICE void set_lane(int &x, int, int v) { x = v; }
DEVICE void load(float &x, const float *p) { x = *p; }
DEVICE void store(float *p, float x) { *p = x; }
DEVICE float sum_lanes(float x) { return x; }

#ifdef __CUDACC__
DEVICE void add_count(int *p, int n) { atomicAdd(p, n); }
DEVICE void add_to(float *p, float x) { atomicAdd(p, x); }
DEVICE void add_product(float *p, float x, float y) { atomicAdd(p, x * y); }
#else
DEVICE void add_count(int *p, int n) { *p += n; }  // each CPU thread counts into its own array
DEVICE void add_to(float *p, float x) { *p += x; }  // no two CPU threads have the same node
DEVICE void add_product(float *p, float x, float y) { *p += x * y; }  // one multiply-add
#endif

}  // namespace infnerf
