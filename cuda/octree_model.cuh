// Nodes of an octree answer samples (InfNeRF): how marching, shading and compositing meet the tree.
#pragma once
#include "contraction.cuh"
#include "field.cuh"

namespace infnerf {

struct OctreeModel {
    template <class P> using Workspace = Activations<P>;
    static constexpr bool keeps_levels = false;  // a sample's level is its node's

    MEMBER float gsd_of_level(const Scene &scene, int level) { return gsd_at(scene, level); }
    template <class P> MEMBER typename P::F finest_gsd(const Scene &scene, typename P::I level) { return gsd_at<P>(scene, level); }
    template <class P> MEMBER typename P::F span_of_grid(const Scene &scene, typename P::I level) { return grid_size<P>(scene, level); }
    template <class P> MEMBER typename P::I occupancy_row(typename P::I node) { return node; }

    // What answers step k of the rays at a root-local point, and the level asked for (InfNeRF eq. 5), its radius jittered.
    template <class P>
    MEMBER Found<P> find(const Scene &scene, const Ray<P> &ray, typename P::F t, typename P::I k, typename P::F x, typename P::F y,
                         typename P::F z, typename P::I &wanted) {
        typedef typename P::F F;
        const F base = scene.root_gsd / (ray.cone * t);
        F blur = all_f<P>(1.0f);
        if (ray.frame > 0) blur = exp2_of<P>(0.5f - random_of<P>(ray.pixel, to_unsigned(k), ray.frame));
        wanted = clamp_level<P>(ray, floor_log2<P>(base * blur));
        return find_node<P>(scene, x, y, z, wanted);
    }

    // How far nothing is occupied: t itself where a cell is.
    template <class P>
    MEMBER typename P::F leaves(const Scene &scene, const Ray<P> &ray, const Found<P> &at, const Cell<P> &cell, typename P::I wanted,
                                typename P::F t, typename P::F x, typename P::F y, typename P::F z) {
        typedef typename P::F F;
        typedef typename P::I I;
        const bool jitter = ray.frame > 0;
        F leave = smaller<F>(leaves_at<P, OctreeModel>(scene, ray, at, cell, t),
                             coarsens_at<P>(scene, ray, at.level, jitter ? 1.41421356237f : 1.0f));
        leave = select(cell.occupied, t, leave);  // occupied and yet no sample: still before the box
        if (!jitter) return leave;
        // the level of the steps skipped may differ by one: skip only where both are empty
        const F base = scene.root_gsd / (ray.cone * t);
        const I finer = clamp_level<P>(ray, floor_log2<P>(base * 1.41421356237f));
        const I coarser = clamp_level<P>(ray, floor_log2<P>(base * 0.70710678119f));
        const Found<P> other = find_node<P>(scene, x, y, z, select(finer == wanted, coarser, finer));
        const Cell<P> beside = cell_at<P>(scene, other.node, other.x, other.y, other.z);
        leave = smaller<F>(leave, coarsens_at<P>(scene, ray, other.level, 1.41421356237f));
        return smaller<F>(leave, select(beside.occupied, t, leaves_at<P, OctreeModel>(scene, ray, other, beside, t)));
    }

    // Who answers a sample around the root cube: the root.
    template <class P> MEMBER void answer_around(const Scene &, const Ray<P> &, Sample<P> &s) { s.node = s.level = s.wanted = all_i<P>(0); }

    template <class P> MEMBER typename P::F level_number(typename P::I level) { return to_float(level); }
    // A sample's radius over the GSD of what answers it.
    template <class P> MEMBER typename P::F footprint_ratio(const Scene &scene, typename P::F radius, typename P::I level) {
        return radius / gsd_at<P>(scene, level);
    }

    // Levels of packed samples `index` of a node; `levels` is null.
    template <class P> MEMBER typename P::I levels_of(const Scene &scene, const int *levels, typename P::I index, int node) {
        return all_i<P>(scene.level[node]);
    }

    // sigma and rgb of all lanes, as if they were in `node`, which is on octree level `own`.
    template <class P, class Table>
    MEMBER typename P::F field(const Scene &scene, int node, int own, typename P::I, typename P::F x, typename P::F y, typename P::F z,
                               Workspace<P> &a, typename P::F *rgb) {
        return shade<P, Table>(scene, node, own, x, y, z, a, rgb);
    }
};

}  // namespace infnerf
