// Packed samples for training and for tests: march without shading, the field at given samples, and its gradient.
// Samples are bucketed by node, so that a packet is W samples that share one node's weights (of a pyramid two heads').
#pragma once
#include "model.cuh"

namespace infnerf {

struct Rays {                 // inputs, [n] unless said
    const float *origins;     // [n, 3] root-local
    const float *directions;  // [n, 3] unit
    const float *cones;       // radius at unit distance
    const int *counters;      // of the generator
    int n, frame, min_level, max_level;
    float step_scale;
};

struct Packed {               // samples of all rays behind each other
    int *ray_indices;
    float *t, *dt;
    float *local;             // [n_samples, 3] node-local position
    int *node, *level, *wanted;  // of a pyramid level and wanted are floats
};

template <class P, class K = OctreeModel> DEVICE Ray<P> load_ray(const Scene &scene, const Rays &rays, typename P::I index, typename P::M &alive) {
    Ray<P> ray;
    const typename P::I i3 = index * 3;
    ray.ox = gather(rays.origins, i3), ray.oy = gather(rays.origins, i3 + 1), ray.oz = gather(rays.origins, i3 + 2);
    ray.dx = gather(rays.directions, i3), ray.dy = gather(rays.directions, i3 + 1);
    ray.dz = gather(rays.directions, i3 + 2);
    ray.cone = gather(rays.cones, index);
    ray.pixel = to_unsigned(gather(rays.counters, index));
    ray.frame = rays.frame;
    alive = alive & prepare_ray<P, K>(scene, ray, rays.step_scale, rays.min_level, rays.max_level);
    return ray;
}

// Writes the sample of each lane in `hit`, which is its ray's number `count`.
template <class P>
DEVICE void write_samples(const Sample<P> &s, typename P::M hit, int first, int n, const int *starts, typename P::I count,
                          const Packed &out) {
    for (int l = 0; l < P::W; l++) {
        if (!lane(hit, l) || first + l >= n) continue;
        const int at = starts[first + l] + lane(count, l);
        out.ray_indices[at] = first + l;
        out.t[at] = lane(s.t, l), out.dt[at] = lane(s.dt, l);
        out.local[3 * at] = lane(s.x, l), out.local[3 * at + 1] = lane(s.y, l), out.local[3 * at + 2] = lane(s.z, l);
        out.node[at] = lane(s.node, l), out.level[at] = lane(s.level, l), out.wanted[at] = lane(s.wanted, l);
    }
}

// counts[i] = samples of ray i, at most `limit`; with `out`, writes them from starts[i] on.
template <class P, class K = OctreeModel>
DEVICE void march_packet(const Scene &scene, const Rays &rays, int first, int limit, int *counts, const int *starts,
                         const Packed *out) {
    typedef typename P::I I;
    typedef typename P::M M;
    I index = all_i<P>(0);
    M alive = none<P>();
    for (int l = 0; l < P::W; l++) set_lane(index, l, first + l < rays.n ? first + l : rays.n - 1);
    alive = all_i<P>(0) == 0;
    const Ray<P> ray = load_ray<P, K>(scene, rays, index, alive);
    I k = larger<I>(to_int(step_index<P>(ray, larger<typename P::F>(ray.near, all_f<P>(0.0f))) - ray.offset - 1.0f),
                    all_i<P>(0));
    I count = all_i<P>(0);
    const M living = count == 0;
    Sample<P> s = Sample<P>();
    NO_UNROLL
    while (any(alive)) {  // nothing is shaded here, so no lane waits for another's sample
        M looking = alive;
        const M hit = advance<P, K>(scene, ray, looking, alive, k, s);
        if (out) write_samples<P>(s, hit, first, rays.n, starts, count, *out);
        count = select(hit, count + 1, count);
        alive = alive & (count < limit);
    }
    for (int j = 0; scene.background && j <= BACKGROUND_STEPS; j++) {
        const M hit = background_sample<P, K>(scene, ray, living & (count < limit), j, s);
        if (out) write_samples<P>(s, hit, first, rays.n, starts, count, *out);
        count = select(hit, count + 1, count);
    }
    for (int l = 0; l < P::W && first + l < rays.n; l++) counts[first + l] = lane(count, l);
}

struct FieldSamples {         // [n_samples] unless said
    const float *local;       // [n_samples, 3]
    const int *ray_indices;
    const float *directions;  // [n_rays, 3]
    const float *appearance;  // [n_rays, scene.appearance]; null: zeros
    const int *order;         // sample numbers bucketed by node
    const int *starts;        // [n_nodes + 1] into order
    float *sigma, *rgb;       // outputs; rgb [n_samples, 3]
    const float *d_sigma, *d_rgb;
    float *d_tables;          // [n_nodes, n_grid_levels, table_size, features], +=
    float *d_mlp;             // [n_nodes, mlp_size], +=
    float *d_appearance;      // [n_samples, scene.appearance], =, of samples with a gradient; null: not wanted
    const int *level;         // of samples in a pyramid: floats
};

template <class P, class A>
DEVICE void load_samples(const Scene &scene, const FieldSamples &s, typename P::I index, A &a, typename P::F *position) {
    const typename P::I i3 = index * 3;
    for (int c = 0; c < 3; c++) position[c] = gather(s.local, i3 + c);
    const typename P::I ray = gather(s.ray_indices, index), r3 = ray * 3;
    look_along<P>(scene, gather(s.directions, r3), gather(s.directions, r3 + 1), gather(s.directions, r3 + 2), a);
    if (!s.appearance) return;
    typename P::F *in = a.color_in + color_inputs(scene) - scene.appearance;
    for (int i = 0; i < scene.appearance; i++) in[i] = gather(s.appearance, ray * scene.appearance + i);
}

template <class P, class Table, class K = OctreeModel>
DEVICE void field_forward_node(const Scene &scene, const FieldSamples &s, int node) {
    typedef typename P::I I;
    const int end = s.starts[node + 1];
    for (int first = s.starts[node]; first < end; first += P::W) {
        I index = all_i<P>(0);
        for (int l = 0; l < P::W; l++) set_lane(index, l, s.order[first + l < end ? first + l : end - 1]);
        typename K::template Workspace<P> a;
        typename P::F position[3], rgb[3];
        load_samples<P>(scene, s, index, a, position);
        const typename P::I level = K::template levels_of<P>(scene, s.level, index, node);
        const typename P::F sigma =
            K::template field<P, Table>(scene, node, scene.level[node], level, position[0], position[1], position[2], a, rgb);
        for (int l = 0; l < P::W && first + l < end; l++) {
            const int i = lane(index, l);
            s.sigma[i] = lane(sigma, l);
            for (int c = 0; c < 3; c++) s.rgb[3 * i + c] = lane(rgb[c], l);
        }
    }
}

template <class P, int FEATURES>
DEVICE void encode_backward(const Scene &scene, float *row, u32 size, const typename P::F *position, const typename P::F *d_features) {
    for (int level = 0; level < scene.n_grid_levels; level++) {
        const Corners<P> c = corners_of<P>(scene, size, level, position[0], position[1], position[2]);
        float *values = row + (u64)level * scene.table_size * FEATURES;
        for (int i = 0; i < 8; i++)
            for (int l = 0; l < P::W; l++) {
                float *entry = values + (u64)lane(c.entry[i], l) * FEATURES;
                const float w = lane(c.weight[i], l);
                for (int f = 0; f < FEATURES; f++) add_product(entry + f, w, lane(d_features[level * FEATURES + f], l));
            }
    }
}

constexpr int BACKWARD_BATCH = 4;  // packets

// One packet on its way back: what the forward pass left, and the gradients layer by layer.
template <class P> struct Backward {
    typedef typename P::F F;
    Activations<P> a;
    F position[3], d_color[3];  // d_color: of the colour MLP's outputs before the sigmoid
    F d_color_hidden[MAX_HIDDEN], d_density[MAX_GEO + 1], d_density_hidden[MAX_HIDDEN];
};

// Runs one packet forward again and its gradients back to the grid's features, which go into the node's tables.
template <class P, class Table>
DEVICE void backward_packet(const Scene &scene, const Layers &at, const FieldSamples &s, int node, typename P::I index,
                            int n, Backward<P> &p, float *d_row) {
    typedef typename P::F F;
    const F zero = all_f<P>(0.0f);
    const float *mlp = scene.mlp + (u64)node * scene.mlp_size;
    const int n_features = scene.n_grid_levels * scene.features;
    F rgb[3], real = zero, d_features[MAX_FEATURES];  // real: 1 in lanes that hold a sample, 0 in those that pad the packet
    load_samples<P>(scene, s, index, p.a, p.position);
    const F sigma = shade<P, Table>(scene, node, scene.level[node], p.position[0], p.position[1], p.position[2], p.a, rgb);
    for (int l = 0; l < n; l++) set_lane(real, l, 1.0f);
    for (int c = 0; c < 3; c++) p.d_color[c] = gather(s.d_rgb, index * 3 + c) * rgb[c] * (1.0f - rgb[c]) * real;
    const typename P::M limited = p.a.density_out[0] + scene.density_shift > MAX_LOG_DENSITY;
    p.d_density[0] = select(limited, zero, gather(s.d_sigma, index) * sigma * real);
    dense_backward_input<P>(mlp + at.color_out, scene.hidden, 3, p.d_color, p.d_color_hidden);
    for (int h = 0; h < scene.hidden; h++)
        p.d_color_hidden[h] = select(p.a.color_hidden[h] > 0.0f, p.d_color_hidden[h], zero);
    dense_backward_input<P>(mlp + at.color_hidden, scene.geo, scene.hidden, p.d_color_hidden, p.d_density + 1);
    dense_backward_input<P>(mlp + at.density_out, scene.hidden, scene.geo + 1, p.d_density, p.d_density_hidden);
    for (int h = 0; h < scene.hidden; h++)
        p.d_density_hidden[h] = select(p.a.density_hidden[h] > 0.0f, p.d_density_hidden[h], zero);
    dense_backward_input<P>(mlp + at.density_hidden, n_features, scene.hidden, p.d_density_hidden, d_features);
    const u32 size = scene.table_sizes[scene.level[node]];
    if (scene.features == 2)
        encode_backward<P, 2>(scene, d_row, size, p.position, d_features);
    else
        encode_backward<P, 4>(scene, d_row, size, p.position, d_features);
}

// The gradients of n samples' appearance: the colour MLP's last inputs.
template <class P>
DEVICE void appearance_backward(const Scene &scene, const Layers &at, const FieldSamples &s, int node, typename P::I index,
                                int n, const Backward<P> &p) {
    typename P::F d_appearance[MAX_APPEARANCE];
    const float *rows = scene.mlp + (u64)node * scene.mlp_size + at.color_hidden;
    rows += (color_inputs(scene) - scene.appearance) * scene.hidden;
    dense_backward_input<P>(rows, scene.appearance, scene.hidden, p.d_color_hidden, d_appearance);
    for (int l = 0; l < n; l++)
        for (int i = 0; i < scene.appearance; i++)
            s.d_appearance[(u64)lane(index, l) * scene.appearance + i] = lane(d_appearance[i], l);
}

// Adds what N packets say of a node's MLPs to d_weights, per lane.
template <class P, int N>
DEVICE void add_weight_gradients(const Scene &scene, const Layers &at, const Backward<P> *p, typename P::F *d_weights) {
    const int stride = sizeof(Backward<P>) / sizeof(typename P::F);
    const int n_features = scene.n_grid_levels * scene.features;
    dense_backward_weights<P, N>(scene.hidden, 3, p->a.color_hidden, p->d_color, stride, d_weights + at.color_out);
    dense_backward_weights<P, N>(color_inputs(scene), scene.hidden, p->a.color_in, p->d_color_hidden, stride,
                                 d_weights + at.color_hidden);
    dense_backward_weights<P, N>(scene.hidden, scene.geo + 1, p->a.density_hidden, p->d_density, stride,
                                 d_weights + at.density_out);
    dense_backward_weights<P, N>(n_features, scene.hidden, p->a.features, p->d_density_hidden, stride,
                                 d_weights + at.density_hidden);
}

// The next up to W samples of a node with a gradient that is not zero; returns how many.
template <class P>
DEVICE int next_with_gradient(const FieldSamples &s, int &cursor, int end, typename P::I &index) {
    int n = 0;
    for (; cursor < end && n < P::W; cursor++) {
        const int i = s.order[cursor];
        if (s.d_sigma[i] == 0 && s.d_rgb[3 * i] == 0 && s.d_rgb[3 * i + 1] == 0 && s.d_rgb[3 * i + 2] == 0) continue;
        set_lane(index, n++, i);
    }
    for (int l = n; n > 0 && l < P::W; l++) set_lane(index, l, lane(index, 0));
    return n;
}

template <class P, class Table>
DEVICE void field_backward_node(const Scene &scene, const FieldSamples &s, int node, Backward<P> *packets,
                                typename P::F *d_weights) {
    const int end = s.starts[node + 1];
    int cursor = s.starts[node], waiting = 0;
    const Layers at = layers_of(scene);
    float *d_row = s.d_tables + (u64)node * scene.n_grid_levels * scene.table_size * scene.features;
    for (int i = 0; i < scene.mlp_size; i++) d_weights[i] = all_f<P>(0.0f);
    bool touched = false;
    typename P::I index = all_i<P>(0);
    while (const int n = next_with_gradient<P>(s, cursor, end, index)) {
        touched = true;
        backward_packet<P, Table>(scene, at, s, node, index, n, packets[waiting], d_row);
        if (s.d_appearance) appearance_backward<P>(scene, at, s, node, index, n, packets[waiting]);
        waiting++;
        if (waiting < BACKWARD_BATCH) continue;
        add_weight_gradients<P, BACKWARD_BATCH>(scene, at, packets, d_weights);
        waiting = 0;
    }
    for (int i = 0; i < waiting; i++) add_weight_gradients<P, 1>(scene, at, packets + i, d_weights);
    if (!touched) return;
    float *d_mlp = s.d_mlp + (u64)node * scene.mlp_size;
    for (int i = 0; i < scene.mlp_size; i++) d_mlp[i] += sum_lanes(d_weights[i]);
}

}  // namespace infnerf
