// Multiresolution hash grid of one node (Mueller et al. 2022, section 3). Twin: models/hash_grid.py.
// Tables are one node's row [n_grid_levels, table_size, features], of which its octree level may use fewer entries (`size`);
// a grid level whose (resolution + 1)**3 corners fit in those is dense, else hashed.
#pragma once
#include "scene.cuh"

namespace infnerf {

struct HalfTable {  // two features a word
    template <class P, int FEATURES>
    MEMBER void fetch(const void *level, typename P::U entry, typename P::F weight, typename P::F *sum) {
        const u32 *words = (const u32 *)level;
        const typename P::F w = weight * HALF_SCALE;
        UNROLL for (int i = 0; i < FEATURES / 2; i++) {
            const typename P::U word = gather(words, entry * (FEATURES / 2) + i);
            sum[2 * i] += lower_half<P>(word) * w;
            sum[2 * i + 1] += upper_half<P>(word) * w;
        }
    }
    MEMBER const void *at(const void *tables, u64 feature) { return (const u16 *)tables + feature; }
};

struct FloatTable {
    template <class P, int FEATURES>
    MEMBER void fetch(const void *level, typename P::U entry, typename P::F weight, typename P::F *sum) {
        const float *values = (const float *)level;
        UNROLL for (int i = 0; i < FEATURES; i++) sum[i] += gather(values, to_signed(entry * FEATURES + i)) * weight;
    }
    MEMBER const void *at(const void *tables, u64 feature) { return (const float *)tables + feature; }
};

template <class P> struct Corners {
    typename P::U entry[8];
    typename P::F weight[8];
};

// The eight entries around a point and their trilinear weights, on one grid level.
template <class P>
DEVICE Corners<P> corners_of(const Scene &scene, u32 size, int level, typename P::F x, typename P::F y, typename P::F z) {
    typedef typename P::F F;
    typedef typename P::I I;
    typedef typename P::U U;
    const int res = scene.grid_resolution[level];
    const I last = all_i<P>(res - 1);
    const F px = x * (float)res, py = y * (float)res, pz = z * (float)res;
    const I ix = smaller<I>(to_int(px), last), iy = smaller<I>(to_int(py), last), iz = smaller<I>(to_int(pz), last);
    const F fx = px - to_float(ix), fy = py - to_float(iy), fz = pz - to_float(iz);
    const bool dense = (u64)(res + 1) * (res + 1) * (res + 1) <= (u64)size;
    const u32 ky = dense ? res + 1 : 2654435761u, kz = dense ? (res + 1) * (res + 1) : 805459861u;
    const u32 mask = size - 1;
    const U x0 = to_unsigned(ix), y0 = to_unsigned(iy) * ky, z0 = to_unsigned(iz) * kz;
    const F gx = 1.0f - fx, gy = 1.0f - fy, gz = 1.0f - fz;
    const F w00 = gy * gz, w10 = fy * gz, w01 = gy * fz, w11 = fy * fz;
    Corners<P> c;
    UNROLL for (int i = 0; i < 8; i++) {
        const U cx = x0 + (u32)(i & 1), cy = y0 + (i & 2 ? ky : 0), cz = z0 + (i & 4 ? kz : 0);
        c.entry[i] = dense ? cx + cy + cz : (cx ^ cy ^ cz) & mask;
        const F side = (i & 4) ? ((i & 2) ? w11 : w01) : ((i & 2) ? w10 : w00);
        c.weight[i] = side * ((i & 1) ? fx : gx);
    }
    return c;
}

// features [n_grid_levels * FEATURES] at a node-local position
template <class P, class Table, int FEATURES>
DEVICE void encode(const Scene &scene, const void *row, u32 size, typename P::F x, typename P::F y, typename P::F z,
                   typename P::F *features) {
    NO_UNROLL
    for (int level = 0; level < scene.n_grid_levels; level++) {
        const Corners<P> c = corners_of<P>(scene, size, level, x, y, z);
        const void *values = Table::at(row, (u64)level * scene.table_size * FEATURES);
        typename P::F sum[FEATURES];
        UNROLL for (int f = 0; f < FEATURES; f++) sum[f] = all_f<P>(0.0f);
        UNROLL for (int i = 0; i < 8; i++) Table::template fetch<P, FEATURES>(values, c.entry[i], c.weight[i], sum);
        UNROLL for (int f = 0; f < FEATURES; f++) features[level * FEATURES + f] = sum[f];
    }
}

}  // namespace infnerf
