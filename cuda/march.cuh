// Marching: which samples a ray takes. Twin: models/marching.py, which evaluates the same rule for every k at once.
//
// Step k of a ray covers t(k) .. t(k+1), where t grows by step_scale * clamp(sqrt(2) * radius(t), gsd(deepest), gsd(min_level)):
// linear, then geometric, then linear, so that t(k) has a closed form. At the middle of a step the level is selected
// (InfNeRF eq. 5), the octree descended, and the node's occupancy bit read: a sample is taken where it is set. Where the tree ends
// above the level asked for, aligned powers of two of steps merge into one as long as the node's own GSD.
#pragma once
#include "octree.cuh"

namespace infnerf {

template <class P> struct Ray {
    typedef typename P::F F;
    F ox, oy, oz;             // root-local
    F dx, dy, dz;             // unit, world
    F lx, ly, lz;             // direction per world unit of t, root-local
    F ix, iy, iz;             // 1 / (lx, ly, lz), large where those vanish
    F cone;                   // radius at unit distance, lod_scale included
    F near, far;
    F growth, log_growth;     // step_scale * sqrt(2) * cone, log2(1 + growth)
    F k1, t1, k2, t2;         // where the geometric part begins and ends
    F offset;                 // of the steps, [0, 1)
    typename P::U pixel;      // counter of the generator
    float dt_min, dt_max;
    u32 frame;
    int min_level, max_level;
};

template <class P> struct Sample {
    typename P::F t, dt, x, y, z;      // middle, length, node-local position in [0, 1]
    typename P::I node, level, wanted;
};

DEVICE float gsd_at(const Scene &scene, int level) { return scene.root_gsd * as_float((127 - level) << 23); }
template <class P> DEVICE typename P::F gsd_at(const Scene &scene, typename P::I level) {
    return as_float((127 - level) << 23) * scene.root_gsd;
}

template <class P> DEVICE typename P::F step_position(const Ray<P> &ray, typename P::F k) {
    typedef typename P::F F;
    F t = k * ray.dt_min;
    const typename P::M geometric = k > ray.k1;
    if (any(geometric)) {
        t = select(geometric, ray.t1 * exp2_of<P>((k - ray.k1) * ray.log_growth), t);
        t = select(k > ray.k2, ray.t2 + (k - ray.k2) * ray.dt_max, t);
    }
    return t;
}

// The inverse of step_position, to about 1e-3: callers round towards taking a step too many, which costs time only.
template <class P> DEVICE typename P::F step_index(const Ray<P> &ray, typename P::F t) {
    typedef typename P::F F;
    F k = t * (1.0f / ray.dt_min);
    const typename P::M geometric = t > ray.t1;
    if (any(geometric)) {
        k = select(geometric, ray.k1 + log2_of<P>(larger<F>(t / ray.t1, all_f<P>(1.0f))) / ray.log_growth, k);
        k = select(t > ray.t2, ray.k2 + (t - ray.t2) * (1.0f / ray.dt_max), k);
    }
    return k;
}

// Where a march meets the model: K is OctreeModel (octree_model.cuh) or PyramidModel (pyramid.cuh). Their samples differ in what
// answers, in `level` and `wanted` (for a pyramid the bits of floats, which compare like the floats), and in how far to skip.

// Fills what follows from ox, oy, oz, dx, dy, dz, cone, pixel, frame. Returns the rays that meet the box.
template <class P, class K = OctreeModel>
DEVICE typename P::M prepare_ray(const Scene &scene, Ray<P> &ray, float step_scale, int min_level, int max_level) {
    typedef typename P::F F;
    typedef typename P::M M;
    const float scale = 1.0f / scene.root_size;
    ray.lx = ray.dx * scale, ray.ly = ray.dy * scale, ray.lz = ray.dz * scale;
    const F large = all_f<P>(1e20f), tiny = all_f<P>(1e-20f), zero = all_f<P>(0.0f);
    ray.ix = select(larger<F>(ray.lx, -ray.lx) > tiny, 1.0f / larger<F>(larger<F>(ray.lx, -ray.lx), tiny), large);
    ray.iy = select(larger<F>(ray.ly, -ray.ly) > tiny, 1.0f / larger<F>(larger<F>(ray.ly, -ray.ly), tiny), large);
    ray.iz = select(larger<F>(ray.lz, -ray.lz) > tiny, 1.0f / larger<F>(larger<F>(ray.lz, -ray.lz), tiny), large);
    ray.ix = select(ray.lx < 0.0f, -ray.ix, ray.ix);
    ray.iy = select(ray.ly < 0.0f, -ray.iy, ray.iy);
    ray.iz = select(ray.lz < 0.0f, -ray.iz, ray.iz);
    const F ax = (scene.aabb[0] - ray.ox) * ray.ix, bx = (scene.aabb[3] - ray.ox) * ray.ix;
    const F ay = (scene.aabb[1] - ray.oy) * ray.iy, by = (scene.aabb[4] - ray.oy) * ray.iy;
    const F az = (scene.aabb[2] - ray.oz) * ray.iz, bz = (scene.aabb[5] - ray.oz) * ray.iz;
    ray.near = larger<F>(larger<F>(smaller<F>(ax, bx), smaller<F>(ay, by)), larger<F>(smaller<F>(az, bz), zero));
    ray.far = smaller<F>(smaller<F>(larger<F>(ax, bx), larger<F>(ay, by)), larger<F>(az, bz));
    const M meets = ray.near < ray.far;
    const int deepest = scene.depth < max_level ? scene.depth : max_level;
    ray.min_level = min_level, ray.max_level = max_level;
    ray.dt_min = step_scale * K::gsd_of_level(scene, deepest);
    ray.dt_max = step_scale * K::gsd_of_level(scene, min_level < deepest ? min_level : deepest);
    ray.growth = ray.cone * (step_scale * 1.41421356237f);
    ray.log_growth = log2_1p<P>(smaller<F>(ray.growth, all_f<P>(1.0f)));
    ray.k1 = 1.0f / ray.growth;
    ray.t1 = ray.dt_min / ray.growth;
    ray.t2 = ray.dt_max / ray.growth;
    ray.k2 = ray.k1 + log2_of<P>(all_f<P>(ray.dt_max / ray.dt_min)) / ray.log_growth;
    ray.offset = zero;
    if (ray.frame > 0) ray.offset = random_of<P>(ray.pixel, typename P::U{} + 0xfffffffdu, ray.frame);
    return meets;
}

template <class P> DEVICE typename P::I clamp_level(const Ray<P> &ray, typename P::I level) {
    typedef typename P::I I;
    return larger<I>(smaller<I>(level, all_i<P>(ray.max_level)), all_i<P>(ray.min_level));
}

template <class P> struct Cell {
    typename P::M occupied;
    typename P::I x, y, z;
};

// The occupancy cell around grid positions of nodes.
template <class P>
DEVICE Cell<P> cell_at(const Scene &scene, typename P::I node, typename P::F x, typename P::F y, typename P::F z) {
    typedef typename P::I I;
    const float res = (float)scene.occupancy_resolution;
    const I last = all_i<P>(scene.occupancy_resolution - 1);
    Cell<P> at;
    at.x = smaller<I>(to_int(x * res), last);
    at.y = smaller<I>(to_int(y * res), last);
    at.z = smaller<I>(to_int(z * res), last);
    const I cell = (at.z * scene.occupancy_resolution + at.y) * scene.occupancy_resolution + at.x;
    const u32 *bits = scene.occupancy;
    typename P::U word;
    if (P::W == 1) {
        word = gather(bits + (u64)lane(node, 0) * scene.occupancy_words, to_unsigned(cell >> 5));
    } else {
        word = typename P::U{};
        for (int l = 0; l < P::W; l++)
            set_lane((I &)word, l, (int)bits[(u64)lane(node, l) * scene.occupancy_words + (lane(cell, l) >> 5)]);
    }
    at.occupied = (to_signed(word >> to_unsigned(cell & 31)) & 1) != 0;
    return at;
}

// What a node's grid spans along an edge, root-local.
template <class P> DEVICE typename P::F grid_size(const Scene &scene, typename P::I level) {
    const typename P::F size = as_float((127 - level) << 23);
    return scene.background ? select(level == 0, all_f<P>(2.0f), size) : size;
}

// t at which the ray leaves the cell that it is in at t.
template <class P, class K = OctreeModel>
DEVICE typename P::F leaves_at(const Scene &scene, const Ray<P> &ray, const Found<P> &at, const Cell<P> &cell, typename P::F t) {
    typedef typename P::F F;
    typedef typename P::I I;
    const float res = (float)scene.occupancy_resolution;
    const I zero = all_i<P>(0), one = all_i<P>(1);
    const F size = K::template span_of_grid<P>(scene, at.level) * (1.0f / res);  // cell's edge, root-local
    const F ex = (to_float(cell.x + select(ray.lx < 0.0f, zero, one)) - at.x * res) * ray.ix;
    const F ey = (to_float(cell.y + select(ray.ly < 0.0f, zero, one)) - at.y * res) * ray.iy;
    const F ez = (to_float(cell.z + select(ray.lz < 0.0f, zero, one)) - at.z * res) * ray.iz;
    return t + smaller<F>(ex, smaller<F>(ey, ez)) * size;
}

// Beyond this t a coarser node than `level` may be asked for.
template <class P>
DEVICE typename P::F coarsens_at(const Scene &scene, const Ray<P> &ray, typename P::I level, float radius_scale) {
    const typename P::F t = gsd_at<P>(scene, level) / (ray.cone * radius_scale);
    return select(level <= ray.min_level, all_f<P>(1e30f), t);
}

// One look at step k of the rays in `need`: where it lies in occupied space the sample goes to `out` and its rays are returned;
// the others skip ahead. k: the next step to look at. Rays that end leave `need` and `alive`.
template <class P, class K = OctreeModel>
DEVICE typename P::M advance(const Scene &scene, const Ray<P> &ray, typename P::M &need, typename P::M &alive,
                             typename P::I &k, Sample<P> &out) {
    typedef typename P::F F;
    typedef typename P::I I;
    typedef typename P::M M;
    const F k0 = to_float(k) + ray.offset;
    const F ta = step_position<P>(ray, k0), tb = step_position<P>(ray, k0 + 1.0f), t = 0.5f * (ta + tb);
    const M ended = need & (t >= ray.far);
    alive = alive & invert(ended);
    need = need & invert(ended);
    if (!any(need)) return need;
    const F x = ray.ox + ray.lx * t, y = ray.oy + ray.ly * t, z = ray.oz + ray.lz * t;
    I wanted;
    const Found<P> at = K::template find<P>(scene, ray, t, k, x, y, z, wanted);
    const Cell<P> cell = cell_at<P>(scene, K::template occupancy_row<P>(at.node), at.x, at.y, at.z);
    const M hit = need & cell.occupied & (t >= ray.near);
    if (any(hit)) {
        const F dt = larger<F>(smaller<F>(ray.growth * t, all_f<P>(ray.dt_max)), all_f<P>(ray.dt_min));
        const float longest = ray.dt_min / K::gsd_of_level(scene, scene.depth < ray.max_level ? scene.depth : ray.max_level);
        I stride = floor_log2<P>(K::template finest_gsd<P>(scene, at.level) * longest / dt);
        stride = larger<I>(smaller<I>(stride, all_i<P>(MAX_STRIDE_LOG2)), all_i<P>(0));
        const I merged = all_i<P>(1) << stride, aligned = k & -k;
        const I steps = select((aligned == 0) | (aligned > merged), merged, aligned);
        const F te = select(steps > 1, step_position<P>(ray, k0 + to_float(steps)), tb);
        const F middle = 0.5f * (ta + te), shift = (middle - t) / K::template span_of_grid<P>(scene, at.level);
        const F zero = all_f<P>(0.0f), one = all_f<P>(1.0f);
        out.t = select(hit, middle, out.t);
        out.dt = select(hit, te - ta, out.dt);
        out.x = select(hit, larger<F>(smaller<F>(at.x + ray.lx * shift, one), zero), out.x);
        out.y = select(hit, larger<F>(smaller<F>(at.y + ray.ly * shift, one), zero), out.y);
        out.z = select(hit, larger<F>(smaller<F>(at.z + ray.lz * shift, one), zero), out.z);
        out.node = select(hit, at.node, out.node);
        out.level = select(hit, at.level, out.level);
        out.wanted = select(hit, wanted, out.wanted);
        k = select(hit, k + steps, k);
        if (!any(need & invert(hit))) return hit;
    }
    const F leave = K::template leaves<P>(scene, ray, at, cell, wanted, t, x, y, z);
    // The middle of a geometric step lies growth / 8 of a step behind its half index (to first order): arithmetic over geometric mean.
    const F half_step = 0.5f + 0.13f * ray.growth;
    const F skip = step_index<P>(ray, smaller<F>(larger<F>(leave, t), ray.far)) - ray.offset - half_step;
    const I next = larger<I>(to_int(larger<F>(skip + 0.998f, all_f<P>(0.0f))), k + 1);
    k = select(need & invert(hit), next, k);
    return hit;
}

// Moves the rays in `need` on to their next sample, all of them before it returns. Rays that end leave `alive`.
template <class P, class K = OctreeModel>
DEVICE void next_sample(const Scene &scene, const Ray<P> &ray, typename P::M need, typename P::M &alive,
                        typename P::I &k, Sample<P> &out) {
    NO_UNROLL
    while (any(need)) {
        const typename P::M hit = advance<P, K>(scene, ray, need, alive, k, out);
        need = need & invert(hit);
    }
}

}  // namespace infnerf
