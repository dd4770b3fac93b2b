// The structs that cross from Python. renderer/kernel_types.py holds the same fields as ctypes; a test compares the sizes.
#pragma once
#include "packet.cuh"

namespace infnerf {

constexpr int MAX_GRID_LEVELS = 16;
constexpr int MAX_LEVELS = 32;  // of the octree, the root counted
constexpr int MAX_FEATURES = 32;
constexpr int MAX_HIDDEN = 64;
constexpr int MAX_GEO = 32;
constexpr int MAX_SH = 16;
constexpr int MAX_APPEARANCE = 16;
constexpr int MAX_STRIDE_LOG2 = 5;
constexpr int MAX_WIDTH = 128;        // of a pyramid's hidden layers
constexpr int BACKGROUND_STEPS = 64;
constexpr float MAX_LOG_DENSITY = 11.0f;

struct Scene {
    const int *children;      // [n_nodes, 8], -1 = none
    const int *level;         // [n_nodes]
    const u32 *occupancy;     // [n_nodes, occupancy_words], a bit a cell, x fastest
    const void *tables;       // [n_nodes, n_grid_levels, table_size, features], half or float
    const float *mlp;         // [n_nodes, mlp_size]
    int n_nodes, depth;
    int n_grid_levels, features, table_size;
    int hidden, geo, sh_degree, appearance;
    int mlp_size, occupancy_resolution, occupancy_words;
    int grid_resolution[MAX_GRID_LEVELS];
    int table_sizes[MAX_LEVELS];  // entries that nodes of an octree level use, at most table_size
    int background;           // 1: the root's grid holds the world around its cube, too (contraction.cuh)
    float root_size, root_gsd, density_shift;
    float aabb[6];            // minimum and maximum of what may be occupied, root-local in [0, 1]
    int heads;                // 0: an octree, which needs nothing of what follows; else the levels of a pyramid (pyramid.cuh)
    int density_hidden, density_layers, color_layers;  // of a pyramid's MLPs; `hidden` is the colour MLP's
    int blends_colors;        // 1: density and colour are interpolated between heads; 0: the density MLPs' outputs
    int trained_resolution;
    float unit;               // length that density is per, world units
    const int *grids;         // [heads, n_grid_levels] first entry of each head's hash grids in `tables`
    const int *head_layers;   // [heads, 3] hash grids of a head; first number of its density MLP and of its colour MLP in `mlp`
    const float *gsds;        // [heads, 3] log2 of the GSD, 1 / (that less the next level's), the GSD
    const u32 *trained;       // [trained_resolution**3] least trained level + 256 * greatest, in 16ths; null: all levels answer
};

struct OctreeModel;           // what answers samples: nodes of a tree (octree_model.cuh),
struct PyramidModel;          // or levels over one cube (pyramid.cuh)

struct View {
    float origin[3];          // camera position, root-local
    float axes[9];            // rows: the camera's x, y, z axes in the world
    float fx, fy, cx, cy;     // px
    int width, height, frame; // px, px, 0 = exact
    int min_level, max_level;
    float lod_scale;          // 2**-lod_bias, multiplies the cone
    float step_scale, early_stop;
};

struct Buffers {              // of the whole image; null: not wanted
    float *color, *depth, *normal, *level, *gsd_ratio, *samples;
    int *node;
    float *clamped;
    int *node_samples;        // [n_nodes], += samples answered by each node; one array a thread
};

}  // namespace infnerf
