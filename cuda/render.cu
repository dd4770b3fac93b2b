// The frame in one kernel: parallel over pixels, a thread a ray; writes every channel with `=`, node_samples with `+=`.
// The CPU runs the same trace_packet with P = Many (cpu.cpp). This is the portable twin of the wavefront kernels.
#include "trace.cuh"

using namespace infnerf;

extern "C" __global__ void render_frame(Scene scene, View view, Buffers out, int x0, int y0, int x1, int y1) {
    const int column = x0 + blockIdx.x * blockDim.x + threadIdx.x, row = y0 + blockIdx.y * blockDim.y + threadIdx.y;
    if (column >= x1 || row >= y1) return;
    Pixel<One> pixel;
    Ray<One> ray;
    trace_packet<One, HalfTable>(scene, view, column, row, true, pixel, ray, out.node_samples);
    write_pixel<One>(pixel, out, 0, row * view.width + column);
}
