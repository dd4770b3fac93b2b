"""What is rendered: octree, hash grid, InfNeRF, volume rendering, cameras, the checkpoint. Needs no GPU and no GL."""
