// A packet of rays from the camera to all channels of the frame: march, shade, composite, until every ray has ended.
// Lanes that wait in different nodes are answered node by node (a waterfall); all lanes compute, a mask keeps the right ones.
// Twin: renderer/torch_executor.py.
#pragma once
#include "model.cuh"

namespace infnerf {

template <class P> struct Pixel {
    typedef typename P::F F;
    F red, green, blue, transmittance;
    F depth, level, gsd_ratio, clamped, samples;  // sums weighted by weight, but for samples
    F heaviest;                                   // the heaviest sample's weight
    typename P::I node;                           // and node
};

template <class P>
DEVICE Ray<P> camera_ray(const Scene &scene, const View &view, typename P::I column, typename P::I row) {
    typedef typename P::F F;
    Ray<P> ray;
    ray.pixel = to_unsigned(row * view.width + column);
    ray.frame = view.frame;
    F px = to_float(column) + 0.5f, py = to_float(row) + 0.5f;
    if (view.frame > 0) {
        const typename P::U zero = typename P::U{};
        px += random_of<P>(ray.pixel, zero + 0xffffffffu, view.frame) - 0.5f;
        py += random_of<P>(ray.pixel, zero + 0xfffffffeu, view.frame) - 0.5f;
    }
    const F x = (px - view.cx) * (1.0f / view.fx), y = (py - view.cy) * (1.0f / view.fy);
    const F length = square_root(x * x + y * y + 1.0f), scale = 1.0f / length;
    const float *a = view.axes;
    ray.dx = (x * a[0] + y * a[3] + a[6]) * scale;
    ray.dy = (x * a[1] + y * a[4] + a[7]) * scale;
    ray.dz = (x * a[2] + y * a[5] + a[8]) * scale;
    ray.ox = all_f<P>(view.origin[0]);
    ray.oy = all_f<P>(view.origin[1]);
    ray.oz = all_f<P>(view.origin[2]);
    const float on_axis = square_root(0.318309886184f / (view.fx * view.fy)) * view.lod_scale;
    ray.cone = on_axis * scale * square_root(scale);
    return ray;
}

// Adds one sample of every lane in `m` (InfNeRF eq. 2; Max 1995).
template <class P, class K = OctreeModel>
DEVICE void composite(const Scene &scene, const Ray<P> &ray, const Sample<P> &s, typename P::M m, typename P::F sigma,
                      const typename P::F *rgb, float lod_scale, Pixel<P> &p) {
    typedef typename P::F F;
    const F zero = all_f<P>(0.0f);
    const F through = exp_of<P>(-sigma * s.dt);
    const F weight = select(m, p.transmittance * (1.0f - through), zero);
    p.transmittance = select(m, p.transmittance * through, p.transmittance);
    p.red += weight * rgb[0];
    p.green += weight * rgb[1];
    p.blue += weight * rgb[2];
    p.depth += weight * s.t;
    p.level += weight * K::template level_number<P>(s.level);
    const F ratio = K::template footprint_ratio<P>(scene, ray.cone * s.t * (1.0f / lod_scale), s.level);
    p.gsd_ratio += weight * log2_of<P>(larger<F>(ratio, all_f<P>(1e-20f)));
    p.clamped += select(s.wanted > s.level, weight, zero);
    p.samples += select(m, all_f<P>(1.0f), zero);
    const typename P::M heavier = weight > p.heaviest;
    p.heaviest = select(heavier, weight, p.heaviest);
    p.node = select(heavier, s.node, p.node);
}

template <class P> DEVICE void count_samples(int *node_samples, int node, typename P::M m) {
    int count = 0;
    for (int l = 0; l < P::W; l++) count += lane(m, l) ? 1 : 0;
    if (node_samples) add_count(node_samples + node, count);
}

// Shades and adds the sample of every lane in `waiting`, node by node.
template <class P, class Table, class K>
DEVICE void add_samples(const Scene &scene, const View &view, const Ray<P> &ray, const Sample<P> &s, typename P::M waiting,
                        typename K::template Workspace<P> &a, Pixel<P> &p, int *node_samples) {
    NO_UNROLL
    while (any(waiting)) {
        int node = 0, level = 0;
        for (int l = 0; l < P::W; l++)
            if (lane(waiting, l)) node = lane(s.node, l), level = lane(s.level, l);
        const typename P::M m = waiting & (s.node == node);
        typename P::F rgb[3];
        const typename P::F sigma = K::template field<P, Table>(scene, node, level, s.level, s.x, s.y, s.z, a, rgb);
        composite<P, K>(scene, ray, s, m, sigma, rgb, view.lod_scale, p);
        count_samples<P>(node_samples, node, m);
        waiting = waiting & invert(m);
    }
}

// What the rays in `living` still see behind the root cube.
template <class P, class Table, class K>
DEVICE void trace_background(const Scene &scene, const View &view, const Ray<P> &ray, typename P::M living,
                             typename K::template Workspace<P> &a, Pixel<P> &p, int *node_samples) {
    Sample<P> s = Sample<P>();
    NO_UNROLL
    for (int j = 0; j <= BACKGROUND_STEPS; j++) {
        living = living & (p.transmittance >= view.early_stop);
        if (!any(living)) return;
        const typename P::M m = background_sample<P, K>(scene, ray, living, j, s);
        add_samples<P, Table, K>(scene, view, ray, s, m, a, p, node_samples);
    }
}

template <class P, class Table, class K = OctreeModel>
DEVICE void trace_packet(const Scene &scene, const View &view, typename P::I column, typename P::I row,
                         typename P::M alive, Pixel<P> &p, Ray<P> &ray, int *node_samples) {
    typedef typename P::F F;
    typedef typename P::I I;
    typedef typename P::M M;
    const F zero = all_f<P>(0.0f);
    p = Pixel<P>();
    p.transmittance = all_f<P>(1.0f);
    p.node = all_i<P>(-1);
    ray = camera_ray<P>(scene, view, column, row);
    M living = alive;
    alive = alive & prepare_ray<P, K>(scene, ray, view.step_scale, view.min_level, view.max_level);
    I k = larger<I>(to_int(step_index<P>(ray, larger<F>(ray.near, zero)) - ray.offset - 1.0f), all_i<P>(0));
    typename K::template Workspace<P> a;
    look_along<P>(scene, ray.dx, ray.dy, ray.dz, a);
    Sample<P> s = Sample<P>();
    NO_UNROLL
    while (any(alive)) {
        next_sample<P, K>(scene, ray, alive, alive, k, s);
        add_samples<P, Table, K>(scene, view, ray, s, alive, a, p, node_samples);
        alive = alive & (p.transmittance >= view.early_stop);
    }
    if (scene.background) trace_background<P, Table, K>(scene, view, ray, living, a, p, node_samples);
}

// Writes lane l of a packet to pixel `index`, all but the normal (normals.cuh).
template <class P> DEVICE void write_pixel(const Pixel<P> &p, const Buffers &out, int l, int index) {
    const float alpha = 1.0f - lane(p.transmittance, l);
    const float mean = alpha > 1e-6f ? 1.0f / alpha : 0.0f;
    out.color[4 * index + 0] = lane(p.red, l);
    out.color[4 * index + 1] = lane(p.green, l);
    out.color[4 * index + 2] = lane(p.blue, l);
    out.color[4 * index + 3] = alpha;
    out.depth[index] = lane(p.depth, l) * mean;
    out.level[index] = lane(p.level, l) * mean;
    out.gsd_ratio[index] = lane(p.gsd_ratio, l) * mean;
    out.samples[index] = lane(p.samples, l);
    out.node[index] = lane(p.node, l);
    out.clamped[index] = lane(p.clamped, l) * mean;
}

}  // namespace infnerf
