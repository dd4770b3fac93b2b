// One node's radiance field: hash grid, density MLP, colour MLP. Twin: InfNeRF.field in models/infnerf.py.
//   x = density MLP(encoding);  sigma = exp(x[0] + density_shift) / gsd(level);  rgb = sigmoid(colour MLP(x[1:], sh(direction)))
#pragma once
#include "hash_grid.cuh"
#include "mlp.cuh"

namespace infnerf {

struct Layers {  // offsets of the four layers in a node's row of mlp
    int density_hidden, density_out, color_hidden, color_out;
};

DEVICE int color_inputs(const Scene &s) { return s.geo + s.sh_degree * s.sh_degree + s.appearance; }

DEVICE Layers layers_of(const Scene &s) {
    const int n_features = s.n_grid_levels * s.features;
    Layers at;
    at.density_hidden = 0;
    at.density_out = at.density_hidden + (n_features + 1) * s.hidden;
    at.color_hidden = at.density_out + (s.hidden + 1) * (s.geo + 1);
    at.color_out = at.color_hidden + (color_inputs(s) + 1) * s.hidden;
    return at;
}

// What the backward pass needs again. color_in = geometry features, then the harmonics of the direction, then the appearance.
template <class P> struct Activations {
    typename P::F features[MAX_FEATURES], density_hidden[MAX_HIDDEN], density_out[MAX_GEO + 1];
    typename P::F color_in[MAX_GEO + MAX_SH + MAX_APPEARANCE], color_hidden[MAX_HIDDEN];
};

// Zeros, the mean of all images' (training/appearance.py).
template <class P, class A> DEVICE void no_appearance(const Scene &scene, A &a) {
    const int last = color_inputs(scene);
    for (int i = last - scene.appearance; i < last; i++) a.color_in[i] = all_f<P>(0.0f);
}

// What of the colour MLP's inputs follows from a ray alone.
template <class P, class A>
DEVICE void look_along(const Scene &scene, typename P::F dx, typename P::F dy, typename P::F dz, A &a) {
    spherical_harmonics<P>(scene.sh_degree, dx, dy, dz, a.color_in + scene.geo);
    no_appearance<P>(scene, a);
}

template <class Table> DEVICE const void *table_row(const Scene &scene, int node) {
    return Table::at(scene.tables, (u64)node * scene.n_grid_levels * scene.table_size * scene.features);
}

template <class P, class Table>
DEVICE void density_features(const Scene &scene, int node, int level, typename P::F x, typename P::F y, typename P::F z,
                             Activations<P> &a) {
    const void *row = table_row<Table>(scene, node);
    const u32 size = scene.table_sizes[level];
    if (scene.features == 2)
        encode<P, Table, 2>(scene, row, size, x, y, z, a.features);
    else
        encode<P, Table, 4>(scene, row, size, x, y, z, a.features);
    const float *mlp = scene.mlp + (u64)node * scene.mlp_size;
    dense<P, true>(mlp, scene.n_grid_levels * scene.features, scene.hidden, a.features, a.density_hidden);
}

template <class P> DEVICE typename P::F density_of(typename P::F log_density, float gsd) {
    return exp_of<P>(smaller<typename P::F>(log_density, all_f<P>(MAX_LOG_DENSITY))) * (1.0f / gsd);
}

template <class P> DEVICE typename P::F sigmoid_of(typename P::F x) { return 1.0f / (exp_of<P>(-x) + 1.0f); }

// sigma and rgb of one node for all lanes; the caller has put harmonics and appearance behind the geometry features in a.color_in.
template <class P, class Table>
DEVICE typename P::F shade(const Scene &scene, int node, int level, typename P::F x, typename P::F y, typename P::F z,
                           Activations<P> &a, typename P::F *rgb) {
    density_features<P, Table>(scene, node, level, x, y, z, a);
    const float *mlp = scene.mlp + (u64)node * scene.mlp_size;
    const Layers at = layers_of(scene);
    dense<P, false>(mlp + at.density_out, scene.hidden, scene.geo + 1, a.density_hidden, a.density_out);
    for (int g = 0; g < scene.geo; g++) a.color_in[g] = a.density_out[g + 1];
    dense<P, true>(mlp + at.color_hidden, color_inputs(scene), scene.hidden, a.color_in, a.color_hidden);
    dense<P, false>(mlp + at.color_out, scene.hidden, 3, a.color_hidden, rgb);
    for (int c = 0; c < 3; c++) rgb[c] = sigmoid_of<P>(rgb[c]);
    const float gsd = scene.root_gsd * as_float((127 - level) << 23);
    return density_of<P>(a.density_out[0] + scene.density_shift, gsd);
}

}  // namespace infnerf
