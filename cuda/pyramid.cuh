// A pyramid of heads over one cube answers samples (PyNeRF, Turki et al. 2023). Twins: models/pyramid.py, models/pyramid_march.py and
// PyNeRF.field in models/pynerf.py.
//   level = log_s(gsd(0) / width), clamped to what was trained there; the heads at floor(level) and above it are interpolated linearly:
//   density MLPs' outputs (the colour MLP is one for all), or density and colour (each head has its own).
// A sample's `node` is the coarser head; `level` and `wanted` are the bits of floats.
#pragma once
#include "contraction.cuh"
#include "field.cuh"

namespace infnerf {

constexpr float PIXEL_WIDTH = 1.77245385091f;  // of the square with the area of a circle of radius 1

// What the layers of a pyramid's MLPs need. color_in = geometry features, then the harmonics of the direction.
template <class P> struct HeadActivations {
    typename P::F features[MAX_FEATURES], hidden[2][MAX_WIDTH], density_out[MAX_GEO + 1], mixed[MAX_GEO + 1];
    typename P::F color_in[MAX_GEO + MAX_SH + MAX_APPEARANCE];
};

// Level whose cells are `width` wide, unbounded above: the sum of how much of each step between two levels is passed.
template <class P> DEVICE typename P::F level_of_width(const Scene &scene, typename P::F width) {
    typedef typename P::F F;
    const F zero = all_f<P>(0.0f), one = all_f<P>(1.0f), wanted = log2_of<P>(width);
    const float *last = scene.gsds + 3 * (scene.heads - 1);
    F level = larger<F>((last[0] - wanted) * last[1], zero);
    NO_UNROLL
    for (int i = 0; i + 1 < scene.heads; i++) {
        const F passed = (scene.gsds[3 * i] - wanted) * scene.gsds[3 * i + 1];
        level += larger<F>(smaller<F>(passed, one), zero);
    }
    return level;
}

// The nearest level that was trained at a grid position; the coarsest where none was.
template <class P>
DEVICE typename P::F nearest_trained(const Scene &scene, typename P::F level, typename P::F x, typename P::F y, typename P::F z) {
    typedef typename P::F F;
    typedef typename P::I I;
    const float res = (float)scene.trained_resolution;
    const I last = all_i<P>(scene.trained_resolution - 1);
    const I ix = smaller<I>(to_int(x * res), last), iy = smaller<I>(to_int(y * res), last), iz = smaller<I>(to_int(z * res), last);
    const typename P::U word = gather(scene.trained, to_unsigned((iz * scene.trained_resolution + iy) * scene.trained_resolution + ix));
    const F least = to_float(to_signed(word & 255u)) * (1.0f / 16), greatest = to_float(to_signed(word >> 8)) * (1.0f / 16);
    return select(least <= greatest, larger<F>(least, smaller<F>(level, greatest)), all_f<P>(0.0f));
}

// An MLP of `layers` layers from `in` to `out`; layers' numbers are behind each other.
template <class P>
DEVICE void run_mlp(const float *weights, int layers, int n_in, int width, int n_out, const typename P::F *in,
                    HeadActivations<P> &a, typename P::F *out) {
    NO_UNROLL
    for (int i = 0; i + 1 < layers; i++) {
        dense<P, true>(weights, n_in, width, in, a.hidden[i & 1]);
        weights += (n_in + 1) * width;
        in = a.hidden[i & 1], n_in = width;
    }
    dense<P, false>(weights, n_in, n_out, in, out);
}

// Features [grids * FEATURES] of one head.
template <class P, class Table, int FEATURES>
DEVICE void encode_head(const Scene &scene, int head, typename P::F x, typename P::F y, typename P::F z, typename P::F *features) {
    const int grids = scene.head_layers[3 * head];
    NO_UNROLL
    for (int grid = 0; grid < grids; grid++) {
        const Corners<P> c = corners_of<P>(scene, scene.table_size, grid, x, y, z);
        const void *values = Table::at(scene.tables, (u64)scene.grids[head * scene.n_grid_levels + grid] * FEATURES);
        typename P::F sum[FEATURES];
        UNROLL for (int f = 0; f < FEATURES; f++) sum[f] = all_f<P>(0.0f);
        UNROLL for (int i = 0; i < 8; i++) Table::template fetch<P, FEATURES>(values, c.entry[i], c.weight[i], sum);
        UNROLL for (int f = 0; f < FEATURES; f++) features[grid * FEATURES + f] = sum[f];
    }
}

template <class P> DEVICE void run_color_mlp(const Scene &scene, int head, const typename P::F *geometry, HeadActivations<P> &a, typename P::F *rgb) {
    for (int g = 0; g < scene.geo; g++) a.color_in[g] = geometry[g];
    const float *weights = scene.mlp + scene.head_layers[3 * head + 2];
    run_mlp<P>(weights, scene.color_layers, color_inputs(scene), scene.hidden, 3, a.color_in, a, rgb);
    for (int c = 0; c < 3; c++) rgb[c] = sigmoid_of<P>(rgb[c]);
}

// Log density, then geometry features, of one head into a.density_out.
template <class P, class Table>
DEVICE void run_density_mlp(const Scene &scene, int head, typename P::F x, typename P::F y, typename P::F z, HeadActivations<P> &a) {
    if (scene.features == 2)
        encode_head<P, Table, 2>(scene, head, x, y, z, a.features);
    else
        encode_head<P, Table, 4>(scene, head, x, y, z, a.features);
    const int *own = scene.head_layers + 3 * head;
    run_mlp<P>(scene.mlp + own[1], scene.density_layers, own[0] * scene.features, scene.density_hidden, scene.geo + 1, a.features, a,
               a.density_out);
}

struct PyramidModel {
    template <class P> using Workspace = HeadActivations<P>;
    static constexpr bool keeps_levels = true;

    MEMBER float gsd_of_level(const Scene &scene, int level) { return scene.gsds[3 * level + 2]; }
    template <class P> MEMBER typename P::F level_number(typename P::I level) { return as_float(level); }
    template <class P> MEMBER typename P::F span_of_grid(const Scene &scene, typename P::I) { return all_f<P>(scene.background ? 2.0f : 1.0f); }
    template <class P> MEMBER typename P::I occupancy_row(typename P::I) { return all_i<P>(0); }

    // GSD of the finer of the two heads that answer a level.
    template <class P> MEMBER typename P::F finest_gsd(const Scene &scene, typename P::I level) {
        typedef typename P::F F;
        const F number = level_number<P>(level);
        const typename P::I low = to_int(number);
        return gather(scene.gsds, select(to_float(low) < number, low + 1, low) * 3 + 2);
    }

    // What a sample of a radius asks for and what answers it, at a grid position.
    template <class P>
    MEMBER void choose(const Scene &scene, const Ray<P> &ray, typename P::F radius, typename P::F x, typename P::F y, typename P::F z,
                       typename P::I &node, typename P::I &level, typename P::I &wanted) {
        typedef typename P::F F;
        const float deepest = (float)(scene.heads - 1), least = (float)ray.min_level, most = (float)ray.max_level;
        const F asked = level_of_width<P>(scene, radius * PIXEL_WIDTH);
        F own = smaller<F>(asked, all_f<P>(deepest));
        if (scene.trained) own = nearest_trained<P>(scene, own, x, y, z);
        own = smaller<F>(larger<F>(own, all_f<P>(least < deepest ? least : deepest)), all_f<P>(most < deepest ? most : deepest));
        node = to_int(own);
        level = as_int(own);
        wanted = as_int(smaller<F>(larger<F>(asked, all_f<P>(least)), all_f<P>(most)));
    }

    template <class P>
    MEMBER Found<P> find(const Scene &scene, const Ray<P> &ray, typename P::F t, typename P::I, typename P::F x, typename P::F y,
                         typename P::F z, typename P::I &wanted) {
        typedef typename P::F F;
        const F zero = all_f<P>(0.0f), one = all_f<P>(1.0f);
        Found<P> at;
        at.x = larger<F>(smaller<F>(x, one), zero);
        at.y = larger<F>(smaller<F>(y, one), zero);
        at.z = larger<F>(smaller<F>(z, one), zero);
        if (scene.background) at.x = at.x * 0.5f + 0.25f, at.y = at.y * 0.5f + 0.25f, at.z = at.z * 0.5f + 0.25f;
        choose<P>(scene, ray, ray.cone * t, at.x, at.y, at.z, at.node, at.level, wanted);
        return at;
    }

    // All levels have one occupancy grid, so only its cells count.
    template <class P>
    MEMBER typename P::F leaves(const Scene &scene, const Ray<P> &ray, const Found<P> &at, const Cell<P> &cell, typename P::I,
                                typename P::F t, typename P::F, typename P::F, typename P::F) {
        return select(cell.occupied, t, leaves_at<P, PyramidModel>(scene, ray, at, cell, t));
    }

    // A sample around the root cube: its level follows its width as inside.
    template <class P> MEMBER void answer_around(const Scene &scene, const Ray<P> &ray, Sample<P> &s) {
        choose<P>(scene, ray, ray.cone * s.t, s.x, s.y, s.z, s.node, s.level, s.wanted);
    }

    // A sample's pixel width over the GSD of its level.
    template <class P> MEMBER typename P::F footprint_ratio(const Scene &scene, typename P::F radius, typename P::I level) {
        typedef typename P::F F;
        typedef typename P::I I;
        const F number = level_number<P>(level);
        const I low = to_int(number), high = smaller<I>(low + 1, all_i<P>(scene.heads - 1));
        const F below = gather(scene.gsds, low * 3), above = gather(scene.gsds, high * 3);
        return radius * PIXEL_WIDTH / exp2_of<P>(below + (above - below) * (number - to_float(low)));
    }

    template <class P> MEMBER typename P::I levels_of(const Scene &, const int *levels, typename P::I index, int) { return gather(levels, index); }

    // sigma and rgb of all lanes, as if `node` were the coarser of the heads around their levels.
    template <class P, class Table>
    MEMBER typename P::F field(const Scene &scene, int node, int, typename P::I level, typename P::F x, typename P::F y, typename P::F z,
                               Workspace<P> &a, typename P::F *rgb) {
        typedef typename P::F F;
        const F zero = all_f<P>(0.0f), finer = level_number<P>(level) - (float)node;
        F sigma = zero;
        for (int c = 0; c < 3; c++) rgb[c] = zero;
        for (int g = 0; g <= scene.geo; g++) a.mixed[g] = zero;
        NO_UNROLL
        for (int i = 0; i < 2; i++) {
            if (i && (node + 1 >= scene.heads || !any(finer > 0.0f))) break;
            const F share = i ? finer : 1.0f - finer;
            run_density_mlp<P, Table>(scene, node + i, x, y, z, a);
            if (scene.blends_colors) {
                F own[3];
                sigma += share * density_of<P>(a.density_out[0] + scene.density_shift, scene.unit);
                run_color_mlp<P>(scene, node + i, a.density_out + 1, a, own);
                for (int c = 0; c < 3; c++) rgb[c] += share * own[c];
            } else {
                for (int g = 0; g <= scene.geo; g++) a.mixed[g] += share * a.density_out[g];
            }
        }
        if (scene.blends_colors) return sigma;
        run_color_mlp<P>(scene, node, a.mixed + 1, a, rgb);
        return density_of<P>(a.mixed[0] + scene.density_shift, scene.unit);
    }
};

// ---- One head's hash grids alone: what training needs beside matrix products.

// features [n, grids * features] of samples first .. first + W - 1 at local [n, 3], of which those below `last` are written
template <class P> DEVICE void encode_packet(const Scene &scene, int head, const float *local, int first, int last, float *features) {
    typename P::I index = all_i<P>(0);
    for (int l = 0; l < P::W; l++) set_lane(index, l, first + l < last ? first + l : last - 1);
    const typename P::F x = gather(local, index * 3), y = gather(local, index * 3 + 1), z = gather(local, index * 3 + 2);
    typename P::F own[MAX_FEATURES];
    if (scene.features == 2)
        encode_head<P, FloatTable, 2>(scene, head, x, y, z, own);
    else
        encode_head<P, FloatTable, 4>(scene, head, x, y, z, own);
    const int n = scene.head_layers[3 * head] * scene.features;
    for (int l = 0; l < P::W && first + l < last; l++)
        for (int f = 0; f < n; f++) features[(u64)(first + l) * n + f] = lane(own[f], l);
}

// Adds what n samples say of one of a head's grids to d_tables, which is laid out like the tables. Samples in their order: the same sums
// each time, so no grid may be in two threads' hands at once.
template <class P> DEVICE void encode_grid_backward(const Scene &scene, int head, int grid, const float *local, const float *d_features, int n, float *d_tables) {
    const int features = scene.features, row = scene.head_layers[3 * head] * features;
    float *values = d_tables + (u64)scene.grids[head * scene.n_grid_levels + grid] * features;
    for (int first = 0; first < n; first += P::W) {
        typename P::I index = all_i<P>(0);
        for (int l = 0; l < P::W; l++) set_lane(index, l, first + l < n ? first + l : n - 1);
        const typename P::F x = gather(local, index * 3), y = gather(local, index * 3 + 1), z = gather(local, index * 3 + 2);
        const Corners<P> c = corners_of<P>(scene, scene.table_size, grid, x, y, z);
        for (int l = 0; l < P::W && first + l < n; l++) {
            const float *d = d_features + (u64)(first + l) * row + grid * features;
            for (int i = 0; i < 8; i++) {
                float *entry = values + (u64)lane(c.entry[i], l) * features;
                const float weight = lane(c.weight[i], l);
                for (int f = 0; f < features; f++) entry[f] += weight * d[f];
            }
        }
    }
}

}  // namespace infnerf
