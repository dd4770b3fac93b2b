// Entry points of training (train.cuh): one kernel a function there, parallel over rays, over tiles of samples, or over rows of numbers.
// Sums over samples are atomic: their order, and so their last bits, differ from run to run.
#include "train.cuh"

using namespace infnerf;

extern "C" __global__ void __launch_bounds__(THREADS) train_march_count(Scene scene, Rays rays, int limit, int *counts) {
    train_march_block(scene, rays, limit, counts, nullptr, nullptr, blockIdx.x);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    train_march(Scene scene, Rays rays, int limit, int *counts, const int *starts, Packed out) {
    train_march_block(scene, rays, limit, counts, starts, &out, blockIdx.x);
}

extern "C" __global__ void __launch_bounds__(THREADS) train_field(Scene scene, FieldSamples samples, const int *tiles, int n) {
    train_field_block(scene, samples, tiles, n, blockIdx.x);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    train_field_backward(Scene scene, FieldSamples samples, const int *tiles, int first, int last, float *scratch) {
    train_field_backward_block(scene, samples, tiles, first, last, scratch, blockIdx.x);
}

// a block a tile
extern "C" __global__ void __launch_bounds__(GRAD_THREADS)
    train_weight_gradients(Scene scene, FieldSamples samples, const int *tiles, int first, int last, const float *scratch) {
    train_weight_gradients_block(scene, samples, tiles, first, last, scratch, blockIdx.x);
}

extern "C" __global__ void __launch_bounds__(THREADS) train_composite(Segments segments, int n_rays, float *rgba) {
    train_composite_block(segments, n_rays, rgba, blockIdx.x);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    train_composite_backward(Segments segments, int n_rays, const float *rgba, const float *d_rgba, float *d_sigma, float *d_rgb) {
    train_composite_backward_block(segments, n_rays, rgba, d_rgba, d_sigma, d_rgb, blockIdx.x);
}

// blocks in y stride over the n rows, blocks in x over a row's numbers
extern "C" __global__ void __launch_bounds__(THREADS)
    train_adam(AdamRows adam, const int *rows, const float *rates, const float *roots, const int *used, int n) {
    for (int row = blockIdx.y; row < n; row += gridDim.y) train_adam_block(adam, rows, rates, roots, used, row, blockIdx.x, gridDim.x);
}
