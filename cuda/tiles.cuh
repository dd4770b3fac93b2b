// Shading in tiles: at most 32 samples of one node, a warp a tile. The portable form; mlp_mma.cuh has the one for tensor cores.
#pragma once
#include "block.cuh"
#include "samples.cuh"

namespace infnerf {

// Writes sigma and rgb of one lane's sample of tile (node, first position in `order`).
template <class Table, class K = OctreeModel>
DEVICE void shade_lane(const Scene &scene, const FieldSamples &s, const int *tile, int lane_index) {
    const int node = tile[0], at = tile[1] + lane_index;
    if (at >= s.starts[node + 1]) return;
    const int i = s.order[at];
    typename K::template Workspace<One> a;
    float position[3], rgb[3];
    load_samples<One>(scene, s, i, a, position);
    const int level = K::template levels_of<One>(scene, s.level, i, node);
    s.sigma[i] = K::template field<One, Table>(scene, node, scene.level[node], level, position[0], position[1], position[2], a, rgb);
    for (int c = 0; c < 3; c++) s.rgb[3 * i + c] = rgb[c];
}

}  // namespace infnerf
