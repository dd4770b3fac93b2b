// What lies around the root cube, in the root's own grid. Twin: models/contraction.py, whose header states the rule.
#pragma once
#include "march.cuh"

namespace infnerf {

constexpr float LAST_S = 1.0f - 0.25f / BACKGROUND_STEPS;

template <class P> DEVICE typename P::F absolute(typename P::F x) { return larger<typename P::F>(x, -x); }

// Where background step j begins, as s.
template <class P> DEVICE typename P::F background_edge(const Ray<P> &ray, int j) {
    typedef typename P::F F;
    const F s = ((float)j - ray.offset) * (1.0f / BACKGROUND_STEPS);
    return larger<F>(smaller<F>(s, all_f<P>(LAST_S)), all_f<P>(0.0f));
}

// Background step j of the rays in `need`: where it has a length and meets an occupied cell, the sample goes to `out` and its
// rays are returned.
template <class P, class K = OctreeModel>
DEVICE typename P::M background_sample(const Scene &scene, const Ray<P> &ray, typename P::M need, int j, Sample<P> &out) {
    typedef typename P::F F;
    typedef typename P::M M;
    const float reach = 0.5f * scene.root_size;
    const F s0 = background_edge<P>(ray, j), s1 = background_edge<P>(ray, j + 1), s = 0.5f * (s0 + s1);
    const F one = all_f<P>(1.0f), zero = all_f<P>(0.0f);
    out.t = larger<F>(ray.far, zero) + reach * s / (1.0f - s);
    out.dt = (s1 - s0) * reach;
    const F x = (ray.ox + ray.lx * out.t) * 2.0f - 1.0f, y = (ray.oy + ray.ly * out.t) * 2.0f - 1.0f;
    const F z = (ray.oz + ray.lz * out.t) * 2.0f - 1.0f;
    const F norm = larger<F>(larger<F>(absolute<P>(x), absolute<P>(y)), larger<F>(absolute<P>(z), one));
    const F scale = (2.0f - 1.0f / norm) / norm * 0.25f;
    out.x = x * scale + 0.5f;
    out.y = y * scale + 0.5f;
    out.z = z * scale + 0.5f;
    K::template answer_around<P>(scene, ray, out);
    const M long_enough = s1 > s0;
    return need & long_enough & cell_at<P>(scene, all_i<P>(0), out.x, out.y, out.z).occupied;
}

}  // namespace infnerf
