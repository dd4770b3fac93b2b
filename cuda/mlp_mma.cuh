// One node's field for up to 32 samples on tensor cores, a warp a tile. Twin: shade in field.cuh, which works in float throughout.
// The hash grid is gathered straight into the first layer's a fragments, each layer's sums are the next one's inputs in the same lanes, and
// the node's weights wait in shared memory as b fragments. Weights, features and activations are halves; sums and biases are floats.
#pragma once
#include "samples.cuh"
#include "warp.cuh"

namespace infnerf {

constexpr int MAX_RUN = 8;  // tiles behind each other that one warp takes: they mostly share a node, so its weights are staged once

// Room for one node's layers: features, hidden units and density outputs (log density, then geometry), padded to multiples of 16.
// The colour MLP's inputs are those outputs, of which log density gets zero weights, then 16 harmonics. Appearance is zero and left out.
template <int FEATURES, int HIDDEN, int OUTPUTS> struct Shape {
    static constexpr int IN = FEATURES / 16, MIDDLE = HIDDEN / 16, OUT = OUTPUTS / 16, COLOR = OUT + 1;  // steps of 16 inputs
    // each layer's first block of [16 inputs][8 columns], and its first bias
    static constexpr int DENSITY_OUT = IN * 2 * MIDDLE, COLOR_HIDDEN = DENSITY_OUT + MIDDLE * 2 * OUT;
    static constexpr int COLOR_OUT = COLOR_HIDDEN + COLOR * 2 * MIDDLE, BLOCKS = COLOR_OUT + MIDDLE;
    static constexpr int OUT_BIAS = HIDDEN, HIDDEN_BIAS = HIDDEN + OUTPUTS, COLOR_BIAS = HIDDEN_BIAS + HIDDEN;

    struct Weights {
        u64 fragments[BLOCKS * WARP];  // both words of each lane's b
        float biases[COLOR_BIAS + 8];
    };

    MEMBER bool holds(const Scene &s, const FieldSamples &samples) {
        return s.n_grid_levels * s.features <= FEATURES && s.hidden <= HIDDEN && s.geo < OUTPUTS && !samples.appearance;
    }
};

// One layer's weights [n_in][n_out] and bias, zeros around them. row(step, i, l): which row is lane l's input i; -1: none.
template <int STEPS, int BLOCKS, class Row>
DEVICE void stage_layer(const float *weights, int n_in, int n_out, const Row &row, u64 *fragments, float *biases) {
    EACH_LANE(l) {
        UNROLL_BY_4
        for (int block = 0; block < BLOCKS * STEPS; block++) {
            const int column = block / STEPS * 8 + weights_column_of(l);
            float w[4];
            UNROLL for (int i = 0; i < 4; i++) {
                const int r = row(block % STEPS, i, l);
                w[i] = r >= 0 && r < n_in && column < n_out ? weights[r * n_out + column] : 0.0f;
            }
            fragments[block * WARP + l] = pack(w[0], w[1]) | (u64)pack(w[2], w[3]) << 32;
        }
        for (int o = l; o < 8 * BLOCKS; o += WARP) biases[o] = o < n_out ? weights[n_in * n_out + o] : 0.0f;
    }
}

template <class S> DEVICE void stage_weights(const Scene &scene, int node, typename S::Weights &w) {
    const float *mlp = scene.mlp + (u64)node * scene.mlp_size;
    const Layers at = layers_of(scene);
    const auto feature = [](int step, int i, int l) { return 16 * step + 4 * quarter_of(l) + i; };
    const auto unit = [](int step, int i, int l) { return 16 * step + input_of(l, i); };
    const auto color = [&](int step, int i, int l) {
        const int k = input_of(l, i);
        if (step == S::OUT) return k < scene.sh_degree * scene.sh_degree ? scene.geo + k : -1;
        return 16 * step + k <= scene.geo ? 16 * step + k - 1 : -1;
    };
    stage_layer<S::IN, 2 * S::MIDDLE>(mlp, scene.n_grid_levels * scene.features, scene.hidden, feature, w.fragments, w.biases);
    stage_layer<S::MIDDLE, 2 * S::OUT>(mlp + at.density_out, scene.hidden, scene.geo + 1, unit, w.fragments + S::DENSITY_OUT * WARP,
                                       w.biases + S::OUT_BIAS);
    stage_layer<S::COLOR, 2 * S::MIDDLE>(mlp + at.color_hidden, color_inputs(scene), scene.hidden, color,
                                         w.fragments + S::COLOR_HIDDEN * WARP, w.biases + S::HIDDEN_BIAS);
    stage_layer<S::MIDDLE, 1>(mlp + at.color_out, scene.hidden, 3, unit, w.fragments + S::COLOR_OUT * WARP, w.biases + S::COLOR_BIAS);
}

// c = a @ weights + bias, for BLOCKS times 8 columns
template <int STEPS, int BLOCKS>
DEVICE void columns(const u64 *fragments, const float *biases, const Var<u32> (&a)[STEPS][4], Var<float> (&c)[BLOCKS][4]) {
    UNROLL for (int block = 0; block < BLOCKS; block++) {
        EACH_LANE(l)
            UNROLL for (int i = 0; i < 4; i++) c[block][i][l] = biases[8 * block + output_of(l, i % 2)];
        UNROLL for (int step = 0; step < STEPS; step++) {
            Var<u32> b[2];
            EACH_LANE(l) {
                const u64 words = fragments[(block * STEPS + step) * WARP + l];
                b[0][l] = (u32)words, b[1][l] = (u32)(words >> 32);
            }
            mma(c[block], a[step], b);
        }
    }
}

template <int STEPS, int OUT>
DEVICE void hidden_layer(const u64 *fragments, const float *biases, const Var<u32> (&a)[STEPS][4], Var<u32> (&out)[OUT][4]) {
    UNROLL for (int o = 0; o < OUT; o++) {
        Var<float> c[2][4];
        columns(fragments + o * 2 * STEPS * WARP, biases + 16 * o, a, c);
        as_inputs<true>(c, out[o]);
    }
}

// One entry's features: a load of 4 or 8 bytes, as rows and entries are aligned to their size.
template <int FEATURES> DEVICE void add_entry(const void *level, u32 entry, float weight, float *sum) {
    const u64 words = FEATURES == 2 ? ((const u32 *)level)[entry] : ((const u64 *)level)[entry];
    UNROLL for (int i = 0; i < FEATURES; i += 2) {
        float low, high;
        unpack((u32)(words >> 16 * i), low, high);
        sum[i] += low * weight, sum[i + 1] += high * weight;
    }
}

// Features `first` to first + 3 at a node-local position, as two words: one grid level of four or two levels of two.
template <int FEATURES>
DEVICE void encode_four(const Scene &scene, const void *row, u32 size, int first, float x, float y, float z, u32 &low, u32 &high) {
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    UNROLL for (int f = 0; f < 4; f += FEATURES) {
        const int level = (first + f) / FEATURES;
        if (level >= scene.n_grid_levels) break;
        const Corners<One> c = corners_of<One>(scene, size, level, x, y, z);
        const void *values = HalfTable::at(row, (u64)level * scene.table_size * FEATURES);
        UNROLL for (int i = 0; i < 8; i++) add_entry<FEATURES>(values, c.entry[i], c.weight[i], sum + f);
    }
    low = pack(sum[0], sum[1]), high = pack(sum[2], sum[3]);
}

// The samples of a tile, one a lane; lanes behind the last sample repeat it.
struct TileSamples {
    Var<int> index;
    Var<float> position[3], direction[3];
};

DEVICE void load_tile(const FieldSamples &s, int first, int n, TileSamples &tile) {
    EACH_LANE(l) {
        const int i = s.order[first + (l < n ? l : n - 1)], ray = s.ray_indices[i];
        tile.index[l] = i;
        UNROLL for (int c = 0; c < 3; c++) {
            tile.position[c][l] = s.local[3 * i + c];
            tile.direction[c][l] = s.directions[3 * ray + c];
        }
    }
}

template <int STEPS>
DEVICE void encode_rows(const Scene &scene, int node, const TileSamples &tile, const Var<int> (&from)[2], Var<u32> (&a)[STEPS][4]) {
    const void *row = table_row<HalfTable>(scene, node);
    const u32 size = scene.table_sizes[scene.level[node]];
    UNROLL for (int r = 0; r < 2; r++) {
        const Var<float> x = shuffle(tile.position[0], from[r]), y = shuffle(tile.position[1], from[r]);
        const Var<float> z = shuffle(tile.position[2], from[r]);
        EACH_LANE(l)
            UNROLL for (int step = 0; step < STEPS; step++) {
                const int first = 16 * step + 4 * quarter_of(l);
                if (scene.features == 2)
                    encode_four<2>(scene, row, size, first, x[l], y[l], z[l], a[step][r][l], a[step][r + 2][l]);
                else
                    encode_four<4>(scene, row, size, first, x[l], y[l], z[l], a[step][r][l], a[step][r + 2][l]);
            }
        sync_warp();
    }
}

// Each lane works out its own sample's harmonics and hands them, a pair at a time, to those who hold its row.
DEVICE void harmonics_of_rows(const Scene &scene, const TileSamples &tile, const Var<int> (&from)[2], Var<u32> (&a)[4]) {
    Var<u32> pairs[MAX_SH / 2];
    EACH_LANE(l) {
        float sh[MAX_SH] = {};
        spherical_harmonics<One>(scene.sh_degree, tile.direction[0][l], tile.direction[1][l], tile.direction[2][l], sh);
        UNROLL for (int j = 0; j < MAX_SH / 2; j++) pairs[j][l] = pack(sh[2 * j], sh[2 * j + 1]);
        UNROLL for (int i = 0; i < 4; i++) a[i][l] = 0;
    }
    UNROLL for (int j = 0; j < MAX_SH / 2; j++) {
        if (2 * j >= scene.sh_degree * scene.sh_degree) break;
        UNROLL for (int r = 0; r < 2; r++) {
            const Var<u32> words = shuffle(pairs[j], from[r]);
            EACH_LANE(l)
                UNROLL for (int pair = 0; pair < 2; pair++)
                    if (input_of(l, 2 * pair) == 2 * j) a[r + 2 * pair][l] = words[l];
        }
    }
}

// sigma and rgb of samples `row` to row + 15 of a tile of n.
template <class S>
DEVICE void shade_rows(const Scene &scene, const FieldSamples &s, int node, const typename S::Weights &w, const TileSamples &tile, int row,
                       int n) {
    Var<int> from[2];
    EACH_LANE(l) from[0][l] = row + row_of(l, 0), from[1][l] = row + row_of(l, 1);
    Var<u32> features[S::IN][4], hidden[S::MIDDLE][4], color_in[S::COLOR][4];
    encode_rows(scene, node, tile, from, features);
    hidden_layer(w.fragments, w.biases, features, hidden);
    Var<float> log_density[2], rgb[1][4];
    UNROLL for (int o = 0; o < S::OUT; o++) {
        Var<float> c[2][4];
        columns(w.fragments + (S::DENSITY_OUT + o * 2 * S::MIDDLE) * WARP, w.biases + S::OUT_BIAS + 16 * o, hidden, c);
        as_inputs<false>(c, color_in[o]);
        if (o == 0) log_density[0] = c[0][0], log_density[1] = c[0][2];
    }
    harmonics_of_rows(scene, tile, from, color_in[S::OUT]);
    hidden_layer(w.fragments + S::COLOR_HIDDEN * WARP, w.biases + S::HIDDEN_BIAS, color_in, hidden);
    columns(w.fragments + S::COLOR_OUT * WARP, w.biases + S::COLOR_BIAS, hidden, rgb);
    const Var<int> index[2] = {shuffle(tile.index, from[0]), shuffle(tile.index, from[1])};
    const float gsd = gsd_at(scene, scene.level[node]);
    EACH_LANE(l)
        UNROLL for (int r = 0; r < 2; r++) {
            if (from[r][l] >= n) continue;
            const int i = index[r][l];
            if (output_of(l, 0) == 0) s.sigma[i] = density_of<One>(log_density[r][l] + scene.density_shift, gsd);
            UNROLL for (int j = 0; j < 2; j++)
                if (output_of(l, j) < 3) s.rgb[3 * i + output_of(l, j)] = sigmoid_of<One>(rgb[0][2 * r + j][l]);
        }
    sync_warp();
}

// Samples order[first .. first + n - 1], all of one node whose weights are staged.
template <class S>
DEVICE void shade_warp(const Scene &scene, const FieldSamples &s, int node, int first, int n, const typename S::Weights &w) {
    TileSamples tile;
    load_tile(s, first, n, tile);
    NO_UNROLL
    for (int row = 0; row < n; row += 16) shade_rows<S>(scene, s, node, w, tile, row, n);
}

// What warp number `warp` of n_warps does: runs of tiles, each tile (node, first position in s.order), 32 samples or to the node's end.
template <class S>
DEVICE void shade_tiles_warp(const Scene &scene, const FieldSamples &s, const int *tiles, int n_tiles, int warp, int n_warps,
                             typename S::Weights &w) {
    int run = n_tiles / n_warps, staged = -1;
    run = run < 1 ? 1 : run > MAX_RUN ? MAX_RUN : run;
    for (int first = warp * run; first < n_tiles; first += n_warps * run)
        for (int tile = first; tile < first + run && tile < n_tiles; tile++) {
            const int node = tiles[2 * tile], begin = tiles[2 * tile + 1], left = s.starts[node + 1] - begin;
            if (node != staged) {
                sync_warp();  // all have read the last node's
                stage_weights<S>(scene, node, w);
                sync_warp();
                staged = node;
            }
            shade_warp<S>(scene, s, node, begin, left < WARP ? left : WARP, w);
        }
}

}  // namespace infnerf
