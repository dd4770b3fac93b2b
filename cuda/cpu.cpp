// The CPU build of the kernels: exports for ctypes. No std::, no threads (Python's thread pool calls in without the GIL),
// no -ffast-math (it would change the whole process's denormal mode).
#include "adam.cuh"
#include "composite.cuh"
#include "launch.h"
#include "normals.cuh"
#include "samples.cuh"
#include "trace.cuh"

using namespace infnerf;

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

EXPORT const char *kernel_source_hash() { return TEXT(KERNEL_SOURCE_HASH); }
EXPORT int kernel_lanes() { return Many::W; }
EXPORT int kernel_struct_size(int which) {
    const int sizes[] = {sizeof(Scene), sizeof(View), sizeof(Buffers), sizeof(Rays), sizeof(Packed), sizeof(FieldSamples), sizeof(Segments),
                         sizeof(AdamRows), sizeof(Slice), sizeof(Wave)};
    return which >= 0 && which < 10 ? sizes[which] : -1;
}

// Calls `function` for the kind of model that a scene is.
#define FOR_MODEL(SCENE, CALL) \
    do { \
        if ((SCENE).heads) { \
            typedef PyramidModel K; \
            CALL; \
        } else { \
            typedef OctreeModel K; \
            CALL; \
        } \
    } while (0)

// A packet covers a compact tile, so that its rays stay in the same nodes.
template <class P, class K>
static void render_packets(const Scene &scene, const View &view, const Buffers &out, const int *region, const volatile int *stop) {
    const int tile_w = P::W >= 8 ? 4 : (P::W == 4 ? 2 : 1), tile_h = P::W / tile_w;
    for (int y = region[1]; y < region[3]; y += tile_h) {
        for (int x = region[0]; x < region[2]; x += tile_w) {
            if (*stop) return;
            typename P::I column = all_i<P>(0), row = all_i<P>(0);
            for (int l = 0; l < P::W; l++) set_lane(column, l, x + l % tile_w), set_lane(row, l, y + l / tile_w);
            const typename P::M inside = (column < region[2]) & (row < region[3]);
            Pixel<P> pixel;
            Ray<P> ray;
            trace_packet<P, HalfTable, K>(scene, view, column, row, inside, pixel, ray, out.node_samples);
            for (int l = 0; l < P::W; l++)
                if (lane(inside, l)) write_pixel<P>(pixel, out, l, lane(row, l) * view.width + lane(column, l));
        }
    }
}

// region: x0, y0, x1, y1. plain: one ray at a time, as a CUDA thread works. stop: polled for each packet.
EXPORT void render_region(const Scene *scene, const View *view, const Buffers *out, const int *region, int plain,
                          const volatile int *stop) {
    if (plain)
        FOR_MODEL(*scene, (render_packets<One, K>(*scene, *view, *out, region, stop)));
    else
        FOR_MODEL(*scene, (render_packets<Many, K>(*scene, *view, *out, region, stop)));
}

template <class P> static void normal_rows(const View &view, const Buffers &out, const int *region, int first, int last) {
    for (int row = first; row < last; row++)
        for (int x = region[0]; x < region[2]; x += P::W) {
            typename P::I column = all_i<P>(x);
            for (int l = 0; l < P::W; l++) set_lane(column, l, x + l);
            write_normals<P>(view, out, region, column, row);
        }
}

// Rows first .. last - 1 of a region whose depth and colour are written.
EXPORT void fill_normals(const View *view, const Buffers *out, const int *region, int first, int last, int plain) {
    if (plain)
        normal_rows<One>(*view, *out, region, first, last);
    else
        normal_rows<Many>(*view, *out, region, first, last);
}

EXPORT void march_rays(const Scene *scene, const Rays *rays, int first, int last, int limit, int *counts,
                       const int *starts, const Packed *out, int plain) {
    const int width = plain ? 1 : Many::W;
    Rays part = *rays;
    part.n = last;
    for (int i = first; i < last; i += width) {
        if (plain)
            FOR_MODEL(*scene, (march_packet<One, K>(*scene, part, i, limit, counts, starts, out)));
        else
            FOR_MODEL(*scene, (march_packet<Many, K>(*scene, part, i, limit, counts, starts, out)));
    }
}

// Counting sort of samples by node: starts [n_nodes + 1], order [n].
EXPORT void bucket_by_node(const int *node, int n, int n_nodes, int *starts, int *order) {
    for (int i = 0; i <= n_nodes; i++) starts[i] = 0;
    for (int i = 0; i < n; i++) starts[node[i] + 1]++;
    for (int i = 0; i < n_nodes; i++) starts[i + 1] += starts[i];
    for (int i = 0; i < n; i++) order[starts[node[i]]++] = i;
    for (int i = n_nodes; i > 0; i--) starts[i] = starts[i - 1];
    starts[0] = 0;
}

template <class P, class K> static void forward_nodes(const Scene &scene, const FieldSamples &s, const int *nodes, int n, int half) {
    for (int i = 0; i < n; i++) {
        if (half)
            field_forward_node<P, HalfTable, K>(scene, s, nodes[i]);
        else
            field_forward_node<P, FloatTable, K>(scene, s, nodes[i]);
    }
}

EXPORT void field_forward(const Scene *scene, const FieldSamples *s, const int *nodes, int n, int half, int plain) {
    if (plain)
        FOR_MODEL(*scene, (forward_nodes<One, K>(*scene, *s, nodes, n, half)));
    else
        FOR_MODEL(*scene, (forward_nodes<Many, K>(*scene, *s, nodes, n, half)));
}

template <class P> static void backward_nodes(const Scene &scene, const FieldSamples &s, const int *nodes, int n) {
    constexpr int largest = (MAX_FEATURES + 1) * MAX_HIDDEN + (MAX_HIDDEN + 1) * MAX_GEO +
                            (MAX_GEO + MAX_SH + MAX_APPEARANCE + 1) * MAX_HIDDEN + (MAX_HIDDEN + 1) * 3;
    typename P::F d_weights[largest];
    Backward<P> packets[BACKWARD_BATCH];
    for (int i = 0; i < n; i++) field_backward_node<P, FloatTable>(scene, s, nodes[i], packets, d_weights);
}

// Tables are float here: training keeps its own master copy. No node may be in two threads' lists at once.
EXPORT void field_backward(const Scene *scene, const FieldSamples *s, const int *nodes, int n, int plain) {
    if (plain)
        backward_nodes<One>(*scene, *s, nodes, n);
    else
        backward_nodes<Many>(*scene, *s, nodes, n);
}

// features [n, grids * features] of samples first .. last - 1 in one of a pyramid's heads; tables are float
EXPORT void encode_head_forward(const Scene *scene, int head, const float *local, int first, int last, float *features, int plain) {
    for (int i = first; i < last; i += plain ? 1 : Many::W) {
        if (plain)
            encode_packet<One>(*scene, head, local, i, last, features);
        else
            encode_packet<Many>(*scene, head, local, i, last, features);
    }
}

// d_tables += what n samples say of one of a head's grids
EXPORT void encode_head_backward(const Scene *scene, int head, int grid, const float *local, const float *d_features, int n,
                                 float *d_tables, int plain) {
    if (plain)
        encode_grid_backward<One>(*scene, head, grid, local, d_features, n, d_tables);
    else
        encode_grid_backward<Many>(*scene, head, grid, local, d_features, n, d_tables);
}

EXPORT void composite_forward(const Segments *s, int first, int last, float *rgba) {
    for (int ray = first; ray < last; ray++) composite_ray(*s, ray, rgba + 4 * ray);
}

EXPORT void composite_backward(const Segments *s, int first, int last, const float *rgba, const float *d_rgba,
                               float *d_sigma, float *d_rgb) {
    for (int ray = first; ray < last; ray++)
        composite_ray_backward(*s, ray, rgba + 4 * ray, d_rgba + 4 * ray, d_sigma, d_rgb);
}

// rates, roots, used: of the rows, in their order
EXPORT void adam_rows(const AdamRows *a, const int *rows, const float *rates, const float *roots, const int *used, int first,
                      int last, int plain) {
    for (int i = first; i < last; i++) {
        if (plain)
            adam_row<One>(*a, rows[i], rates[i], roots[i], used[i]);
        else
            adam_row<Many>(*a, rows[i], rates[i], roots[i], used[i]);
    }
}

// Runs a kernel of the GPU here, as launch.h says. Returns 0 if there is none of that name.
EXPORT int launch_kernel(const char *name, const int *shape, void **arguments, int backwards) {
    return launch_by_name(name, shape, arguments, backwards);
}

// Multiply-adds per second of this core: the peak that benchmarks quote. Returns the number of operations done.
EXPORT double multiply_add_peak(int rounds, float *sink) {
    FloatLanes a[12], x = all_f<Many>(0.999f), y = all_f<Many>(1e-3f);
    for (int i = 0; i < 12; i++) a[i] = all_f<Many>(0.1f * i);
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < 12; i++) a[i] = a[i] * x + y;
    for (int i = 0; i < 12; i++) sink[i] = sum_lanes(a[i]);
    return 2.0 * 12 * Many::W * rounds;
}
