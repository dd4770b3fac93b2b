// Both kinds of models. What is compiled for GPUs is compiled for one of them (-DPYRAMID=1: a pyramid), as `Model`.
#pragma once
#include "octree_model.cuh"
#include "pyramid.cuh"

namespace infnerf {

#ifdef PYRAMID
typedef PyramidModel Model;
#else
typedef OctreeModel Model;
#endif

}  // namespace infnerf
