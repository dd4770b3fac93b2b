// The frame as a wavefront. Each round every living ray marches on by some samples; these are bucketed by node, shaded tile by tile, and
// composited in their order; the rays that go on are compacted. Numbers that only the device knows (living rays, tiles) stay there:
// launch shapes are fixed, blocks stride over what there is, and a round without rays costs next to nothing. Rays that outlive
// the rounds are finished one by one. A pixel is written once, when its ray ends. Twin: trace.cuh, whose channels these are.
//
// A slot is where a sample lies: sample j of entry i of the round's list of n living rays is slot j * n + i.
#pragma once
#include "block.cuh"
#include "samples.cuh"
#include "trace.cuh"

namespace infnerf {

constexpr int MAX_ROUNDS = 128;
constexpr int ROUNDS_USED = MAX_ROUNDS + 2;  // counters: the last round with rays,
constexpr int RAYS_LEFT = MAX_ROUNDS + 3;    // and how many rays outlived all rounds, since the frame began
constexpr int RAY_TILE_W = 8, RAY_TILE_H = 4;  // px; 32 rays of neighbouring pixels follow each other
constexpr int RAY_ENDED = -(1 << 30);        // as a ray's step; steps below 0 are those of the background, -1 its first
constexpr int N_SUMS = 10;                   // floats of a Pixel

struct Slice {              // what one pass over the kernels renders
    View view;
    int region[4];          // x0, y0, x1, y1
    int first;              // 1: of its frame
};

struct Wave {
    Slice *slice;           // [1]
    int *counters;          // [MAX_ROUNDS + 4]: living rays as each round begins, ROUNDS_USED, RAYS_LEFT
    float *directions;      // [rays, 3]
    int *step;              // [rays] the next one to look at
    float *sums;            // [N_SUMS, rays] of Pixel
    int *heaviest_node;     // [rays] of Pixel
    int *living;            // [2, rays] lists of rays, of even and of odd rounds
    int *alive;             // [rays] 1: that entry of the list goes on
    int *chunk_counts;      // [rays / CHUNK + 1] of those that go on; zero between uses
    int *chunk_starts;      // [rays / CHUNK + 2]
    float *t, *dt, *local;  // [samples], local [samples, 3]
    int *ray_indices, *node, *wanted;  // [samples]; node -1: no sample in this slot
    int *rank;              // [samples] which one of its node it is
    int *order;             // [samples] slots bucketed by node
    float *sigma, *rgb;     // [samples], [samples, 3]
    int *node_counts;       // [n_nodes] zero between uses
    int *starts;            // [n_nodes + 1] into order
    int *tile_starts;       // [n_nodes + 1] into tiles; the last one is how many tiles there are
    int *tiles;             // [samples / TILE_SAMPLES + n_nodes, 2] node, first position in order
    int rays, samples;      // that there is room for
    int max_steps;          // samples of a ray in one round
    Buffers out;
    int *level;             // [samples] of a pyramid: floats
};

DEVICE int tiles_across(const int *region) { return (region[2] - region[0] + RAY_TILE_W - 1) / RAY_TILE_W; }
DEVICE int ray_count(const int *region) {
    return tiles_across(region) * ((region[3] - region[1] + RAY_TILE_H - 1) / RAY_TILE_H) * (RAY_TILE_W * RAY_TILE_H);
}

// The pixel of a slice's ray; false beyond the region's edge.
DEVICE bool pixel_of(const int *region, int ray, int &column, int &row) {
    const int tile = ray / (RAY_TILE_W * RAY_TILE_H), in = ray % (RAY_TILE_W * RAY_TILE_H), across = tiles_across(region);
    column = region[0] + tile % across * RAY_TILE_W + in % RAY_TILE_W;
    row = region[1] + tile / across * RAY_TILE_H + in / RAY_TILE_W;
    return column < region[2] && row < region[3];
}

DEVICE int *list_of(const Wave &w, int round) { return w.living + (round & 1 ? w.rays : 0); }

// As many as there is room for: few rays take many samples a round, so that few rounds are needed.
DEVICE int steps_of(const Wave &w, int n_living) {
    const int room = w.samples / (n_living > 0 ? n_living : 1);
    return room < w.max_steps ? room : w.max_steps;
}

// A slice's ray, made anew in each kernel: cheaper than loading forty numbers. Returns whether it meets the box.
template <class K>
DEVICE bool wave_ray(const Scene &scene, const Wave &w, int ray_index, Ray<One> &ray, int &pixel) {
    const View &view = w.slice->view;
    int column, row;
    pixel_of(w.slice->region, ray_index, column, row);
    pixel = row * view.width + column;
    ray = camera_ray<One>(scene, view, column, row);
    return prepare_ray<One, K>(scene, ray, view.step_scale, view.min_level, view.max_level);
}

// Moves a ray on to its next sample, in the cube and then behind it; false at its end.
template <class K>
DEVICE bool next_of_ray(const Scene &scene, const Ray<One> &ray, int &step, Sample<One> &s) {
    if (step >= 0) {
        bool alive = true;
        next_sample<One, K>(scene, ray, true, alive, step, s);
        if (alive) return true;
        step = scene.background ? -1 : RAY_ENDED;
    }
    while (step != RAY_ENDED) {
        const int j = -1 - step;
        if (j > BACKGROUND_STEPS) {
            step = RAY_ENDED;
            break;
        }
        step--;
        if (background_sample<One, K>(scene, ray, true, j, s)) return true;
    }
    return false;
}

DEVICE void store_pixel(const Wave &w, int ray, const Pixel<One> &p) {
    const float values[N_SUMS] = {p.red,   p.green,     p.blue,    p.transmittance, p.depth,
                                  p.level, p.gsd_ratio, p.clamped, p.samples,       p.heaviest};
    UNROLL for (int i = 0; i < N_SUMS; i++) w.sums[(u64)i * w.rays + ray] = values[i];
    w.heaviest_node[ray] = p.node;
}

DEVICE Pixel<One> load_pixel(const Wave &w, int ray) {
    float v[N_SUMS];
    UNROLL for (int i = 0; i < N_SUMS; i++) v[i] = w.sums[(u64)i * w.rays + ray];
    Pixel<One> p;
    p.red = v[0], p.green = v[1], p.blue = v[2], p.transmittance = v[3], p.depth = v[4], p.level = v[5];
    p.gsd_ratio = v[6], p.clamped = v[7], p.samples = v[8], p.heaviest = v[9];
    p.node = w.heaviest_node[ray];
    return p;
}

// ---- Kernels: what block number `block` of `n_blocks` does. Parallel over what the name says.

// Parallel over counters. Everything that a frame counts begins at zero.
DEVICE void wave_begin_block(const Scene &scene, const Wave &w, const Slice &slice, int block, int n_blocks) {
    const int n_chunks = w.rays / CHUNK + 1;
    for (int base = block * THREADS; base < scene.n_nodes || base < n_chunks || base == 0; base += n_blocks * THREADS) {
        EACH_THREAD(t, THREADS) {
            const int i = base + t;
            if (i < n_chunks) w.chunk_counts[i] = 0;
            if (i < scene.n_nodes) w.node_counts[i] = 0;
            if (i < scene.n_nodes && slice.first) w.out.node_samples[i] = 0;
            if (i == 0) {
                *w.slice = slice;
                w.counters[0] = ray_count(slice.region);
                w.tile_starts[scene.n_nodes] = 0;
                if (slice.first) w.counters[ROUNDS_USED] = w.counters[RAYS_LEFT] = 0;
            }
        }
    }
}

// Parallel over rays: their first step. Those that see nothing are written at once; the others are round 0's list.
template <class K>
DEVICE void wave_rays_block(const Scene &scene, const Wave &w, int, int block, int n_blocks) {
    const Slice &slice = *w.slice;
    const int n = w.counters[0];
    for (int base = block * THREADS; base < n; base += n_blocks * THREADS) {
        EACH_THREAD(t, THREADS) {
            const int i = base + t;
            bool alive = false;
            int column, row;
            if (i < n && pixel_of(slice.region, i, column, row)) {
                Ray<One> ray;
                int pixel;
                const bool meets = wave_ray<K>(scene, w, i, ray, pixel);
                int step = RAY_ENDED;
                if (meets)
                    step = larger<int>(to_int(step_index<One>(ray, larger<float>(ray.near, 0.0f)) - ray.offset - 1.0f), 0);
                else if (scene.background)
                    step = -1;
                alive = step != RAY_ENDED;
                Pixel<One> p = Pixel<One>();
                p.transmittance = 1.0f;
                p.node = -1;
                w.step[i] = step;
                store_pixel(w, i, p);
                const float d[3] = {ray.dx, ray.dy, ray.dz};
                for (int c = 0; c < 3; c++) w.directions[3 * i + c] = d[c];
                if (!alive) write_pixel<One>(p, w.out, 0, pixel);
            }
            if (i < n) w.living[i] = i, w.alive[i] = alive;
            claim(w.chunk_counts, alive ? i / CHUNK : -1);
        }
    }
}

// One block. Where each chunk's rays go in the next list, and how long that is.
DEVICE void wave_scan_rays_block(const Scene &, const Wave &w, int round, int block, int) {
    if (block != 0) return;
    const int n = w.counters[round], n_chunks = (n + CHUNK - 1) / CHUNK;
    scan_array(w.chunk_counts, n_chunks, w.chunk_starts, Plain());
    EACH_THREAD(t, SCAN_THREADS) {
        for (int i = t; i < n_chunks; i += SCAN_THREADS) w.chunk_counts[i] = 0;
        if (t == 0) {
            w.counters[round + 1] = w.chunk_starts[n_chunks];
            if (n > 0 && w.counters[ROUNDS_USED] < round) w.counters[ROUNDS_USED] = round;
        }
    }
}

// Parallel over chunks of the list: the next round's list, in the same order.
DEVICE void wave_compact_block(const Scene &, const Wave &w, int round, int block, int n_blocks) {
    const int n = w.counters[round];
    for (int chunk = block; chunk * CHUNK < n; chunk += n_blocks)
        compact_chunk(list_of(w, round), w.alive, n, w.chunk_starts, chunk, list_of(w, round + 1));
}

// Parallel over living rays: their next samples, and how many each node gets.
template <class K>
DEVICE void wave_march_block(const Scene &scene, const Wave &w, int round, int block, int n_blocks) {
    const int n = w.counters[round], steps = steps_of(w, n);
    const int *list = list_of(w, round);
    for (int base = block * THREADS; base < n; base += n_blocks * THREADS) {
        EACH_THREAD(t, THREADS) {
            const int i = base + t;
            int found = 0;
            if (i < n) {
                const int index = list[i];
                Ray<One> ray;
                int pixel, step = w.step[index];
                wave_ray<K>(scene, w, index, ray, pixel);
                Sample<One> s = Sample<One>();
                NO_UNROLL
                for (; found < steps && next_of_ray<K>(scene, ray, step, s); found++) {
                    const int slot = found * n + i;
                    w.t[slot] = s.t, w.dt[slot] = s.dt;
                    w.local[3 * slot] = s.x, w.local[3 * slot + 1] = s.y, w.local[3 * slot + 2] = s.z;
                    w.ray_indices[slot] = index, w.node[slot] = s.node, w.wanted[slot] = s.wanted;
                    if (K::keeps_levels) w.level[slot] = s.level;
                }
                for (int j = found; j < steps; j++) w.node[j * n + i] = -1;
                w.step[index] = step;
            }
            NO_UNROLL
            for (int j = 0; j < steps; j++) {
                const int rank = claim(w.node_counts, j < found ? w.node[j * n + i] : -1);
                if (j < found) w.rank[j * n + i] = rank;
            }
        }
    }
}

// One block. Where each node's samples and tiles begin; the counts go into the frame's and become zero.
DEVICE void wave_scan_nodes_block(const Scene &scene, const Wave &w, int round, int block, int) {
    if (block != 0) return;
    if (w.counters[round] == 0) {
        EACH_THREAD(t, 1) w.tile_starts[scene.n_nodes] = 0;
        return;
    }
    scan_array(w.node_counts, scene.n_nodes, w.starts, Plain());
    scan_array(w.node_counts, scene.n_nodes, w.tile_starts, InTiles());
    EACH_THREAD(t, SCAN_THREADS) {
        for (int i = t; i < scene.n_nodes; i += SCAN_THREADS) {
            w.out.node_samples[i] += w.node_counts[i];
            w.node_counts[i] = 0;
        }
    }
}

// Parallel over slots: samples bucketed by node, and the tiles that they fill.
DEVICE void wave_scatter_block(const Scene &, const Wave &w, int round, int block, int n_blocks) {
    const int n = w.counters[round], n_slots = n * steps_of(w, n);
    for (int base = block * THREADS; base < n_slots; base += n_blocks * THREADS) {
        EACH_THREAD(t, THREADS) {
            const int slot = base + t, node = slot < n_slots ? w.node[slot] : -1;
            if (node >= 0) {
                const int rank = w.rank[slot], at = w.starts[node] + rank;
                w.order[at] = slot;
                if (rank % TILE_SAMPLES == 0) {
                    int *tile = w.tiles + 2 * (w.tile_starts[node] + rank / TILE_SAMPLES);
                    tile[0] = node, tile[1] = at;
                }
            }
        }
    }
}

// Parallel over living rays: their samples in order. Those shaded behind an early stop are taken back from the count.
template <class K>
DEVICE void wave_composite_block(const Scene &scene, const Wave &w, int round, int block, int n_blocks) {
    const View &view = w.slice->view;
    const int n = w.counters[round], steps = steps_of(w, n);
    const int *list = list_of(w, round);
    for (int base = block * THREADS; base < n; base += n_blocks * THREADS) {
        EACH_THREAD(t, THREADS) {
            const int i = base + t;
            bool alive = false;
            if (i < n) {
                const int index = list[i];
                Ray<One> ray;
                int pixel;
                wave_ray<K>(scene, w, index, ray, pixel);
                Pixel<One> p = load_pixel(w, index);
                NO_UNROLL
                for (int j = 0; j < steps; j++) {
                    const int slot = j * n + i, node = w.node[slot];
                    if (node < 0) break;
                    if (p.transmittance < view.early_stop) {
                        add_count(w.out.node_samples + node, -1);
                        continue;
                    }
                    Sample<One> s = Sample<One>();
                    s.t = w.t[slot], s.dt = w.dt[slot];
                    s.node = node, s.level = K::template levels_of<One>(scene, w.level, slot, node), s.wanted = w.wanted[slot];
                    composite<One, K>(scene, ray, s, true, w.sigma[slot], w.rgb + 3 * slot, view.lod_scale, p);
                }
                alive = w.step[index] != RAY_ENDED && p.transmittance >= view.early_stop;
                if (alive)
                    store_pixel(w, index, p);
                else
                    write_pixel<One>(p, w.out, 0, pixel);
                w.alive[i] = alive;
            }
            claim(w.chunk_counts, alive ? i / CHUNK : -1);
        }
    }
}

// Parallel over the rays that outlived all rounds, a thread a ray, to their ends. `round`: the one after the last.
template <class K>
DEVICE void wave_finish_block(const Scene &scene, const Wave &w, int round, int block, int n_blocks) {
    const View &view = w.slice->view;
    const int n = w.counters[round];
    const int *list = list_of(w, round);
    for (int base = block * THREADS; base < n; base += n_blocks * THREADS) {
        EACH_THREAD(t, THREADS) {
            const int i = base + t;
            if (i == 0) w.counters[RAYS_LEFT] += n;
            if (i < n) {
                const int index = list[i];
                Ray<One> ray;
                int pixel, step = w.step[index];
                wave_ray<K>(scene, w, index, ray, pixel);
                Pixel<One> p = load_pixel(w, index);
                typename K::template Workspace<One> a;
                look_along<One>(scene, ray.dx, ray.dy, ray.dz, a);
                Sample<One> s = Sample<One>();
                NO_UNROLL
                while (p.transmittance >= view.early_stop && next_of_ray<K>(scene, ray, step, s)) {
                    float rgb[3];
                    const float sigma = K::template field<One, HalfTable>(scene, s.node, s.level, s.level, s.x, s.y, s.z, a, rgb);
                    composite<One, K>(scene, ray, s, true, sigma, rgb, view.lod_scale, p);
                    count_samples<One>(w.out.node_samples, s.node, true);
                }
                write_pixel<One>(p, w.out, 0, pixel);
            }
        }
    }
}

}  // namespace infnerf
