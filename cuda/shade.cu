// Shading on any GPU: parallel over tiles, a warp a tile, a thread a sample; writes sigma and rgb with `=`. Launched with a fixed shape:
// how many tiles there are only the device knows. Twin on tensor cores: shade_tiles_mma.
#include "tiles.cuh"

using namespace infnerf;

// tiles [n, 2] = (node, first position in samples.order); a tile ends at min(first + 32, samples.starts[node + 1])
extern "C" __global__ void __launch_bounds__(256)
    shade_tiles(Scene scene, FieldSamples samples, const int *tiles, const int *n_tiles) {
    const int warps = blockDim.x / TILE_SAMPLES, n = *n_tiles;
    for (int tile = blockIdx.x * warps + threadIdx.x / TILE_SAMPLES; tile < n; tile += gridDim.x * warps)
        shade_lane<HalfTable, Model>(scene, samples, tiles + 2 * tile, threadIdx.x % TILE_SAMPLES);
}
