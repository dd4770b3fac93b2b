// The field on tensor cores: parallel over tiles, a warp a tile; writes sigma and rgb of the tiles' samples with `=`.
// Twin: shade_tiles. Compiled for one model's shape by -DSHADE_FEATURES=, -DSHADE_HIDDEN=, -DSHADE_OUTPUTS= (renderer/tensor_cores.py) it
// needs fewer registers and less shared memory than with room for every model, as here.
#include "mlp_mma.cuh"

#ifndef SHADE_FEATURES
#define SHADE_FEATURES 32
#define SHADE_HIDDEN 64
#define SHADE_OUTPUTS 32
#endif

using namespace infnerf;

typedef Shape<SHADE_FEATURES, SHADE_HIDDEN, SHADE_OUTPUTS> ShadeShape;
constexpr int STATIC_SHARED = 48 * 1024, FITTING = STATIC_SHARED / sizeof(ShadeShape::Weights), SHADE_WARPS = FITTING < 4 ? FITTING : 4;
constexpr int RESIDENT = SHADE_FEATURES == 16 && SHADE_HIDDEN < 64 ? 3 : 2;  // blocks of 256 threads: the most without spills

// tiles [n, 2] = (node, first position in samples.order); n_tiles on the device, so the grid may have any size and blocks up to 256 threads;
// warps of a block for which there is no room in shared memory rest: 128 threads suit.
extern "C" __global__ void __launch_bounds__(256, RESIDENT) shade_tiles_mma(Scene scene, FieldSamples samples, const int *tiles, const int *n_tiles) {
    __shared__ ShadeShape::Weights weights[SHADE_WARPS];
    if (!ShadeShape::holds(scene, samples)) __trap();
    const int here = blockDim.x / WARP < SHADE_WARPS ? blockDim.x / WARP : SHADE_WARPS, warp = threadIdx.x / WARP;
    if (warp >= here) return;
    shade_tiles_warp<ShadeShape>(scene, samples, tiles, *n_tiles, blockIdx.x * here + warp, gridDim.x * here, weights[warp]);
}
