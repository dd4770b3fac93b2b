// CPU only: kernels launched by name, their blocks one after the other, with arguments as cuLaunchKernel takes them. So the host side of
// the cuda executor runs, and is tested, without a GPU: all but races and the machine itself.
#pragma once
#include "launch_train.h"
#include "normals.cuh"
#include "tiles.cuh"
#include "wave.cuh"

namespace infnerf {

typedef void (*RoundKernel)(const Scene &, const Wave &, int round, int block, int n_blocks);

struct NamedKernel {
    const char *name;
    RoundKernel run;
};

template <class K> struct RoundKernels {
    static constexpr NamedKernel ALL[] = {
        {"wave_rays", wave_rays_block<K>},           {"wave_scan_rays", wave_scan_rays_block},   {"wave_compact", wave_compact_block},
        {"wave_march", wave_march_block<K>},         {"wave_scan_nodes", wave_scan_nodes_block}, {"wave_scatter", wave_scatter_block},
        {"wave_composite", wave_composite_block<K>}, {"wave_finish", wave_finish_block<K>},
    };
};

// As compiled for one kind of model.
template <class K> static inline int launch_compiled(const char *name, const int *shape, void **args, int backwards) {
    const int n_blocks = shape[0];
    for (const NamedKernel &kernel : RoundKernels<K>::ALL) {
        if (!same_name(name, kernel.name)) continue;
        for (int b = 0; b < n_blocks; b++)
            kernel.run(*(const Scene *)args[0], *(const Wave *)args[1], *(const int *)args[2],
                       backwards ? n_blocks - 1 - b : b, n_blocks);
        return 1;
    }
    if (same_name(name, "wave_begin")) {
        for (int b = 0; b < n_blocks; b++)
            wave_begin_block(*(const Scene *)args[0], *(const Wave *)args[1], *(const Slice *)args[2], b, n_blocks);
        return 1;
    }
    if (same_name(name, "shade_tiles")) {
        const int *tiles = *(const int **)args[2], n_tiles = **(const int **)args[3];
        for (int i = 0; i < n_tiles; i++)
            for (int l = 0; l < TILE_SAMPLES; l++)
                shade_lane<HalfTable, K>(*(const Scene *)args[0], *(const FieldSamples *)args[1], tiles + 2 * i, l);
        return 1;
    }
    if (same_name(name, "render_frame")) {
        for (int y = *(const int *)args[4]; y < *(const int *)args[6]; y++)
            for (int x = *(const int *)args[3]; x < *(const int *)args[5]; x++) {
                const View &view = *(const View *)args[1];
                const Buffers &out = *(const Buffers *)args[2];
                Pixel<One> pixel;
                Ray<One> ray;
                trace_packet<One, HalfTable, K>(*(const Scene *)args[0], view, x, y, true, pixel, ray, out.node_samples);
                write_pixel<One>(pixel, out, 0, y * view.width + x);
            }
        return 1;
    }
    if (same_name(name, "fill_normals")) {
        int region[4];
        for (int i = 0; i < 4; i++) region[i] = *(const int *)args[2 + i];
        for (int y = region[1]; y < region[3] && y < region[1] + shape[1] * shape[3]; y++)
            for (int x = region[0]; x < region[2] && x < region[0] + shape[0] * shape[2]; x++)
                write_normals<One>(*(const View *)args[0], *(const Buffers *)args[1], region, x, y);
        return 1;
    }
    return 0;
}

// shape: blocks in x and y, threads in x and y. backwards: the last block first. Returns 0 for a name that is none. What trains is an
// octree; the first argument of the other kernels, but for fill_normals, which knows no model, is the scene.
static inline int launch_by_name(const char *name, const int *shape, void **args, int backwards) {
    if (launch_training(name, shape, args, backwards)) return 1;
    if (!same_name(name, "fill_normals") && ((const Scene *)args[0])->heads)
        return launch_compiled<PyramidModel>(name, shape, args, backwards);
    return launch_compiled<OctreeModel>(name, shape, args, backwards);
}

}  // namespace infnerf
