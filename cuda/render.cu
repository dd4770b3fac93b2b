// The frame: parallel over pixels, a thread a ray; writes every channel with `=`, node_samples with `+=`.
// The CPU runs the same trace_packet with P = Many (cpu.cpp). This is the portable twin of the wavefront kernels.
#include "normals.cuh"
#include "trace.cuh"

using namespace infnerf;

extern "C" __global__ void render_frame(Scene scene, View view, Buffers out, int x0, int y0, int x1, int y1) {
    const int column = x0 + blockIdx.x * blockDim.x + threadIdx.x, row = y0 + blockIdx.y * blockDim.y + threadIdx.y;
    if (column >= x1 || row >= y1) return;
    Pixel<One> pixel;
    Ray<One> ray;
    trace_packet<One, HalfTable, Model>(scene, view, column, row, true, pixel, ray, out.node_samples);
    write_pixel<One>(pixel, out, 0, row * view.width + column);
}

// After render_frame has written the whole region: a pixel looks at its neighbours.
extern "C" __global__ void fill_normals(View view, Buffers out, int x0, int y0, int x1, int y1) {
    const int column = x0 + blockIdx.x * blockDim.x + threadIdx.x, row = y0 + blockIdx.y * blockDim.y + threadIdx.y;
    const int region[4] = {x0, y0, x1, y1};
    if (column < x1 && row < y1) write_normals<One>(view, out, region, column, row);
}
