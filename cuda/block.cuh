// What a block of threads does together, written once for CUDA and for the CPU build, which runs the threads one after the other.
//   EACH_THREAD(t, N) { ... }  the block's N threads, each with its number t; BARRIER between what one writes and another reads
//   SHARED int x[N];           memory of the block
// Nothing that a thread must remember lives across a BARRIER but in shared memory.
#pragma once
#include "portable.cuh"

#ifdef __CUDACC__
#define EACH_THREAD(t, N) if (const int t = threadIdx.x; t < (N))
#define BARRIER __syncthreads()
#define SHARED __shared__
#define INLINE __device__ __forceinline__
#else
#define EACH_THREAD(t, N) for (int t = 0; t < (N); t++)
#define BARRIER
#define SHARED
#define INLINE inline
#endif

namespace infnerf {

constexpr int THREADS = 256;        // a block of every kernel but the scans
constexpr int SCAN_THREADS = 1024;  // the one block of a scan
constexpr int ITEMS = 8;            // entries of a list that a thread compacts
constexpr int CHUNK = THREADS * ITEMS;
constexpr int TILE_SAMPLES = 32;    // a warp's

// counts[i] += 1; returns what it was. All threads of a warp must come; i < 0: this one counts nothing. Threads of a warp with one i
// share an atomic. Who comes first gets the smaller number, so the order within a bucket is not that of the samples, and may differ
// from run to run; nothing that is computed depends on it.
DEVICE int claim(int *counts, int i) {
#ifdef __CUDACC__
    const u32 peers = __match_any_sync(0xffffffffu, i);
    const int lane = threadIdx.x & 31, leader = __ffs(peers) - 1;
    int before = 0;
    if (lane == leader && i >= 0) before = atomicAdd(counts + i, __popc(peers));
    return __shfl_sync(0xffffffffu, before, leader) + __popc(peers & ((1u << lane) - 1));
#else
    return i >= 0 ? counts[i]++ : 0;
#endif
}

// Running sums over the block's N threads (Hillis and Steele 1986): sums[0] holds what is summed, of all threads; returns which
// of the two then holds the sums, each with its own number counted in.
template <int N> DEVICE int scan_block(int (*sums)[N]) {
    int from = 0;
    BARRIER;
    for (int step = 1; step < N; step *= 2) {
        EACH_THREAD(t, N) sums[1 - from][t] = sums[from][t] + (t >= step ? sums[from][t - step] : 0);
        BARRIER;
        from = 1 - from;
    }
    return from;
}

struct Plain {  // sums of the counts themselves
    INLINE int operator()(int count) const { return count; }
};

struct InTiles {  // sums of how many tiles they fill
    INLINE int operator()(int count) const { return (count + TILE_SAMPLES - 1) / TILE_SAMPLES; }
};

// starts[i] = sum over j < i of size(counts[j]), for i in 0 .. n. One block; each thread sums a run of the array.
template <class Size> DEVICE void scan_array(const int *counts, int n, int *starts, Size size) {
    SHARED int sums[2][SCAN_THREADS];
    const int run = (n + SCAN_THREADS - 1) / SCAN_THREADS;
    BARRIER;
    EACH_THREAD(t, SCAN_THREADS) {
        int sum = 0;
        for (int i = t * run; i < (t + 1) * run && i < n; i++) sum += size(counts[i]);
        sums[0][t] = sum;
    }
    const int *after = sums[scan_block<SCAN_THREADS>(sums)];
    EACH_THREAD(t, SCAN_THREADS) {
        int sum = t ? after[t - 1] : 0;
        for (int i = t * run; i < (t + 1) * run && i < n; i++) {
            starts[i] = sum;
            sum += size(counts[i]);
        }
        if (t == SCAN_THREADS - 1) starts[n] = sum;
    }
    BARRIER;
}

// to[starts[c] ..] = those entries of from[c * CHUNK ..] whose flag is set, in their order, for the block's chunk c of a list of n.
DEVICE void compact_chunk(const int *from, const int *flags, int n, const int *starts, int chunk, int *to) {
    SHARED int sums[2][THREADS];
    BARRIER;
    EACH_THREAD(t, THREADS) {
        int sum = 0;
        const int first = chunk * CHUNK + t * ITEMS;
        for (int i = first; i < first + ITEMS && i < n; i++) sum += flags[i];
        sums[0][t] = sum;
    }
    const int *after = sums[scan_block<THREADS>(sums)];
    EACH_THREAD(t, THREADS) {
        const int first = chunk * CHUNK + t * ITEMS;
        int at = starts[chunk] + (t ? after[t - 1] : 0);
        for (int i = first; i < first + ITEMS && i < n; i++)
            if (flags[i]) to[at++] = from[i];
    }
}

}  // namespace infnerf
