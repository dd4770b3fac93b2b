// Entry points of the wavefront (wave.cuh): one kernel a function there. Every launch shape is fixed; wave_scan_* take one block.
// A frame: wave_begin, wave_rays, wave_scan_rays(0), wave_compact(0); for each round from 1 on wave_march, wave_scan_nodes, wave_scatter,
// shade_tiles (shade.cu), wave_composite, wave_scan_rays, wave_compact; wave_finish; fill_normals (render.cu).
#include "wave.cuh"

using namespace infnerf;

#define KERNEL_OF(NAME, BLOCK, ...) \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__) NAME(Scene scene, Wave wave, int round) { \
        BLOCK(scene, wave, round, blockIdx.x, gridDim.x); \
    }
#define KERNEL(NAME, ...) KERNEL_OF(NAME, NAME##_block, __VA_ARGS__)
#define MODEL_KERNEL(NAME, ...) KERNEL_OF(NAME, NAME##_block<Model>, __VA_ARGS__)

extern "C" __global__ void __launch_bounds__(THREADS) wave_begin(Scene scene, Wave wave, Slice slice) {
    wave_begin_block(scene, wave, slice, blockIdx.x, gridDim.x);
}
MODEL_KERNEL(wave_rays, THREADS)
KERNEL(wave_scan_rays, SCAN_THREADS)
KERNEL(wave_compact, THREADS)
MODEL_KERNEL(wave_march, THREADS)
KERNEL(wave_scan_nodes, SCAN_THREADS)
KERNEL(wave_scatter, THREADS)
MODEL_KERNEL(wave_composite, THREADS)
#ifdef PYRAMID
MODEL_KERNEL(wave_finish, THREADS, 1)  // one block a processor will do: told nothing, ptxas spills to fit three
#else
MODEL_KERNEL(wave_finish, THREADS)
#endif
