// The warp's code on the CPU, for tests/test_mma.py: lanes one after the other, mma() as the PTX manual spells it out. Not in the wheel's
// libraries: nothing renders with it.
#include "mlp_mma.cuh"

using namespace infnerf;

// a [4, 32], b [2, 32] words as lanes hold them; c [4, 32], +=
EXPORT void emulated_mma(const u32 *a, const u32 *b, float *c) {
    mma_of_words(a, b, c);
}

EXPORT u32 emulated_pack(float low, float high) { return pack(low, high); }

template <int FEATURES, int HIDDEN, int OUTPUTS>
static int run(const Scene &scene, const FieldSamples &s, const int *tiles, int n_tiles, int n_warps) {
    typedef Shape<FEATURES, HIDDEN, OUTPUTS> S;
    if (!S::holds(scene, s)) return 0;
    typename S::Weights weights;
    for (int warp = 0; warp < n_warps; warp++) shade_tiles_warp<S>(scene, s, tiles, n_tiles, warp, n_warps, weights);
    return 1;
}

// shade_tiles_mma as compiled for a shape, of those that the tests use. Returns 1; 0: it holds no such model; -1: no such shape here.
EXPORT int emulated_shade_tiles(const Scene *scene, const FieldSamples *s, const int *tiles, int n_tiles, int n_warps, int features,
                                int hidden, int outputs) {
#define TRY(F, H, O) \
    if (features == F && hidden == H && outputs == O) return run<F, H, O>(*scene, *s, tiles, n_tiles, n_warps)
    TRY(16, 16, 16);
    TRY(16, 32, 16);
    TRY(32, 64, 32);
#undef TRY
    return -1;
}
