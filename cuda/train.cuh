// Training on the GPU: what train.cu launches, a function a kernel, each for one block. Twins: the CPU build's march_rays, field_*,
// composite_* and adam_rows (cpu.cpp), on the same device functions.
// Samples are bucketed by node and cut into tiles of GRAD_SAMPLES; tiles [n, 2] = (node, first position in order), and a tile that begins
// behind its node's samples is empty, so that the host need not know how many there are.
#pragma once
#include "adam.cuh"
#include "block.cuh"
#include "composite.cuh"
#include "samples.cuh"

namespace infnerf {

constexpr int GRAD_SAMPLES = 64;  // of a tile
constexpr int GRAD_ROWS = 32;     // inputs and outputs of a layer whose products a block of weight gradients sums together
constexpr int GRAD_SIDE = 4;      // of the square of those that one thread sums
constexpr int GRAD_THREADS = (GRAD_ROWS / GRAD_SIDE) * (GRAD_ROWS / GRAD_SIDE);
static_assert(GRAD_SAMPLES <= GRAD_THREADS && GRAD_ROWS <= GRAD_THREADS && THREADS % GRAD_SAMPLES == 0, "a thread a sample, and a bias");

// counts [n] = samples of each ray; with `out` also writes them, from starts [n] on.
DEVICE void train_march_block(const Scene &scene, const Rays &rays, int limit, int *counts, const int *starts, const Packed *out,
                              int block) {
    EACH_THREAD(t, THREADS) {
        const int ray = block * THREADS + t;
        if (ray < rays.n) march_packet<One>(scene, rays, ray, limit, counts, starts, out);
    }
}

// Position in `order` of a thread's sample in tiles first .. last - 1, a tile GRAD_SAMPLES threads; -1: none.
DEVICE int tile_position(const FieldSamples &s, const int *tiles, int tile, int last, int thread) {
    if (tile >= last) return -1;
    const int at = tiles[2 * tile + 1] + thread % GRAD_SAMPLES;
    return at < s.starts[tiles[2 * tile] + 1] ? at : -1;
}

// sigma and rgb of the samples of n tiles, with `=`.
DEVICE void train_field_block(const Scene &scene, const FieldSamples &s, const int *tiles, int n, int block) {
    EACH_THREAD(t, THREADS) {
        const int tile = block * (THREADS / GRAD_SAMPLES) + t / GRAD_SAMPLES, at = tile_position(s, tiles, tile, n, t);
        if (at >= 0) {
            const int i = s.order[at], node = tiles[2 * tile];
            Activations<One> a;
            float position[3], rgb[3];
            load_samples<One>(scene, s, i, a, position);
            s.sigma[i] = shade<One, FloatTable>(scene, node, scene.level[node], position[0], position[1], position[2], a, rgb);
            for (int c = 0; c < 3; c++) s.rgb[3 * i + c] = rgb[c];
        }
    }
}

// A layer's part of the scratch that field_backward leaves: rows of numbers, a column a sample; and where its weights are.
struct LayerRows {
    int in, n_in, d_out, n_out, weights;
};

constexpr int N_LAYERS = 4;

// The four layers' rows, behind each other. Returns how many there are.
DEVICE int layer_rows(const Scene &scene, LayerRows *rows) {
    const Layers at = layers_of(scene);
    const int n_in[N_LAYERS] = {scene.n_grid_levels * scene.features, scene.hidden, color_inputs(scene), scene.hidden};
    const int n_out[N_LAYERS] = {scene.hidden, scene.geo + 1, scene.hidden, 3};
    const int weights[N_LAYERS] = {at.density_hidden, at.density_out, at.color_hidden, at.color_out};
    int row = 0;
    UNROLL for (int i = 0; i < N_LAYERS; i++) {
        rows[i].in = row, rows[i].n_in = n_in[i];
        row += n_in[i];
        rows[i].d_out = row, rows[i].n_out = n_out[i];
        row += n_out[i];
        rows[i].weights = weights[i];
    }
    return row;
}

DEVICE void put_column(float *scratch, u64 columns, int row, int n, const float *values) {
    NO_UNROLL
    for (int i = 0; i < n; i++) scratch[(row + i) * columns] = values[i];
}

// Gradients of tables (atomic +=) and appearance (=) of the samples of tiles first .. last - 1; and into scratch
// [rows of layer_rows, (last - first) * GRAD_SAMPLES] with `=` what weight_gradients needs; zeros where no sample is.
DEVICE void train_field_backward_block(const Scene &scene, const FieldSamples &s, const int *tiles, int first, int last, float *scratch,
                                       int block) {
    const u64 columns = (u64)(last - first) * GRAD_SAMPLES;
    EACH_THREAD(t, THREADS) {
        const int tile = first + block * (THREADS / GRAD_SAMPLES) + t / GRAD_SAMPLES, at = tile_position(s, tiles, tile, last, t);
        LayerRows rows[N_LAYERS];
        const int n_rows = layer_rows(scene, rows);
        float *column = scratch + (u64)block * THREADS + t;
        if (at >= 0) {
            const int node = tiles[2 * tile];
            const Layers layers = layers_of(scene);
            float *d_row = s.d_tables + (u64)node * scene.n_grid_levels * scene.table_size * scene.features;
            Backward<One> p;
            backward_packet<One, FloatTable>(scene, layers, s, node, s.order[at], 1, p, d_row);
            if (s.d_appearance) appearance_backward<One>(scene, layers, s, node, s.order[at], 1, p);
            const float *in[N_LAYERS] = {p.a.features, p.a.density_hidden, p.a.color_in, p.a.color_hidden};
            const float *d_out[N_LAYERS] = {p.d_density_hidden, p.d_density, p.d_color_hidden, p.d_color};
            UNROLL for (int i = 0; i < N_LAYERS; i++) {
                put_column(column, columns, rows[i].in, rows[i].n_in, in[i]);
                put_column(column, columns, rows[i].d_out, rows[i].n_out, d_out[i]);
            }
        } else if (tile < last) {
            NO_UNROLL
            for (int i = 0; i < n_rows; i++) column[i * columns] = 0.0f;
        }
    }
}

// One square of a layer: d_weights[i][o] += sum over the tile's samples of in[i] * d_out[o], and the bias with its first inputs.
DEVICE void add_products(const LayerRows &layer, int first_in, int first_out, const float *column, u64 columns, float *d_weights) {
    SHARED float in[GRAD_SAMPLES][GRAD_ROWS + 1], d_out[GRAD_SAMPLES][GRAD_ROWS + 1];  // + 1: rows on banks of their own
    const int n_in = layer.n_in - first_in, n_out = layer.n_out - first_out;
    BARRIER;
    EACH_THREAD(t, GRAD_SAMPLES) {
        for (int r = 0; r < GRAD_ROWS; r++) {
            in[t][r] = r < n_in ? column[(u64)(layer.in + first_in + r) * columns + t] : 0.0f;
            d_out[t][r] = r < n_out ? column[(u64)(layer.d_out + first_out + r) * columns + t] : 0.0f;
        }
    }
    BARRIER;
    EACH_THREAD(t, GRAD_THREADS) {
        const int i = t / (GRAD_ROWS / GRAD_SIDE) * GRAD_SIDE, o = t % (GRAD_ROWS / GRAD_SIDE) * GRAD_SIDE;
        if (i < n_in && o < n_out) {
            float sum[GRAD_SIDE][GRAD_SIDE] = {};
            for (int sample = 0; sample < GRAD_SAMPLES; sample++) {
                float x[GRAD_SIDE], d[GRAD_SIDE];
                UNROLL for (int k = 0; k < GRAD_SIDE; k++) x[k] = in[sample][i + k], d[k] = d_out[sample][o + k];
                UNROLL for (int k = 0; k < GRAD_SIDE; k++) UNROLL for (int j = 0; j < GRAD_SIDE; j++) sum[k][j] += x[k] * d[j];
            }
            UNROLL for (int k = 0; k < GRAD_SIDE; k++) UNROLL for (int j = 0; j < GRAD_SIDE; j++)
                if (i + k < n_in && o + j < n_out)
                    add_to(d_weights + layer.weights + (first_in + i + k) * layer.n_out + first_out + o + j, sum[k][j]);
        }
        if (first_in == 0 && t < GRAD_ROWS && t < n_out) {
            float sum = 0.0f;
            for (int sample = 0; sample < GRAD_SAMPLES; sample++) sum += d_out[sample][t];
            add_to(d_weights + layer.weights + layer.n_in * layer.n_out + first_out + t, sum);
        }
    }
}

// What one tile (first + block) says of its node's MLPs, atomic +=, from the scratch of train_field_backward.
DEVICE void train_weight_gradients_block(const Scene &scene, const FieldSamples &s, const int *tiles, int first, int last,
                                         const float *scratch, int block) {
    const int node = tiles[2 * (first + block)];
    if (tiles[2 * (first + block) + 1] >= s.starts[node + 1]) return;
    LayerRows rows[N_LAYERS];
    layer_rows(scene, rows);
    const u64 columns = (u64)(last - first) * GRAD_SAMPLES;
    float *d_weights = s.d_mlp + (u64)node * scene.mlp_size;
    NO_UNROLL
    for (int layer = 0; layer < N_LAYERS; layer++)
        NO_UNROLL for (int i = 0; i < rows[layer].n_in; i += GRAD_ROWS)
            NO_UNROLL for (int o = 0; o < rows[layer].n_out; o += GRAD_ROWS)
                add_products(rows[layer], i, o, scratch + (u64)block * GRAD_SAMPLES, columns, d_weights);
}

// rgba [n_rays, 4], with `=`.
DEVICE void train_composite_block(const Segments &s, int n_rays, float *rgba, int block) {
    EACH_THREAD(t, THREADS) {
        const int ray = block * THREADS + t;
        if (ray < n_rays) composite_ray(s, ray, rgba + 4 * ray);
    }
}

// d_sigma [n_samples] and d_rgb [n_samples, 3], with `=`.
DEVICE void train_composite_backward_block(const Segments &s, int n_rays, const float *rgba, const float *d_rgba, float *d_sigma,
                                           float *d_rgb, int block) {
    EACH_THREAD(t, THREADS) {
        const int ray = block * THREADS + t;
        if (ray < n_rays) composite_ray_backward(s, ray, rgba + 4 * ray, d_rgba + 4 * ray, d_sigma, d_rgb);
    }
}

// Part `block` of n_blocks of row `row`: rates, roots, used are of the rows, in their order (adam.cuh).
DEVICE void train_adam_block(const AdamRows &a, const int *rows, const float *rates, const float *roots, const int *used, int row,
                             int block, int n_blocks) {
    const u64 start = (u64)rows[row] * a.row_size;
    const float rate = rates[row], root = roots[row];
    const int n = used[row];
    EACH_THREAD(t, THREADS) {
        for (int first = 0; first < a.row_size; first += a.block)
            for (int i = block * THREADS + t; i < n; i += n_blocks * THREADS) adam_values<One>(a, start + first + i, rate, root);
    }
}

}  // namespace infnerf
