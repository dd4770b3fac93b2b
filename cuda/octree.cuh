// Descent from the root. Twin: Octree.find in models/octree.py (same float arithmetic: doubling and subtracting one are exact).
#pragma once
#include "scene.cuh"

namespace infnerf {

template <class P> struct Found {
    typename P::I node, level;
    typename P::F x, y, z;  // grid position in the node, [0, 1]
};

// The deepest existing node on the path to a root-local point that is not deeper than `wanted`.
template <class P>
DEVICE Found<P> find_node(const Scene &scene, typename P::F x, typename P::F y, typename P::F z, typename P::I wanted) {
    typedef typename P::F F;
    typedef typename P::I I;
    typedef typename P::M M;
    const F zero = all_f<P>(0.0f), one = all_f<P>(1.0f);
    Found<P> at;
    at.node = at.level = all_i<P>(0);
    at.x = larger<F>(smaller<F>(x, one), zero);
    at.y = larger<F>(smaller<F>(y, one), zero);
    at.z = larger<F>(smaller<F>(z, one), zero);
    for (int level = 0; level < scene.depth; level++) {
        const F x2 = at.x * 2.0f, y2 = at.y * 2.0f, z2 = at.z * 2.0f;
        const M bx = x2 >= 1.0f, by = y2 >= 1.0f, bz = z2 >= 1.0f;
        const I i0 = all_i<P>(0);
        const I octant = select(bx, all_i<P>(1), i0) | select(by, all_i<P>(2), i0) | select(bz, all_i<P>(4), i0);
        const I child = gather(scene.children, at.node * 8 + octant);
        const M down = (child >= 0) & (wanted > level) & (at.level == level);
        if (!any(down)) break;
        at.node = select(down, child, at.node);
        at.level = select(down, all_i<P>(level + 1), at.level);
        at.x = select(down, select(bx, x2 - 1.0f, x2), at.x);
        at.y = select(down, select(by, y2 - 1.0f, y2), at.y);
        at.z = select(down, select(bz, z2 - 1.0f, z2), at.z);
    }
    if (scene.background) {
        const M root = at.level == 0;
        at.x = select(root, at.x * 0.5f + 0.25f, at.x);
        at.y = select(root, at.y * 0.5f + 0.25f, at.y);
        at.z = select(root, at.z * 0.5f + 0.25f, at.z);
    }
    return at;
}

}  // namespace infnerf
