// A channel of a picture into a GL texture: parallel over texels, a thread a texel; writes every texel with `=`.
// Bits are moved, not numbers, so that one kernel serves float and int and no denormal is flushed.
// Surfaces exist on the GPU only; the twin is the host's upload of the same array (viewer/texture.py).
#include "portable.cuh"

using infnerf::u64;

// source [height, width, components], components 1, 3 or 4; a surface of one or, for 3 and 4, of four components.
extern "C" __global__ void write_surface(u64 surface, const int *source, int components, int width, int height) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    const u64 i = (u64)y * width + x;
    if (components == 1) {
        surf2Dwrite(source[i], surface, x * (int)sizeof(int), y);
    } else if (components == 3) {
        surf2Dwrite(make_int4(source[3 * i], source[3 * i + 1], source[3 * i + 2], 0), surface,
                    x * (int)sizeof(int4), y);
    } else {
        surf2Dwrite(((const int4 *)source)[i], surface, x * (int)sizeof(int4), y);
    }
}
