"""Which octree levels answer a view, and from what share of the tree: the O(log n) claim in one table.

python examples/01_levels_of_a_view.py [CHECKPOINT]
"""

import sys

import numpy as np

from infnerf.renderer import DEMO, Renderer, spiral

with Renderer.from_checkpoint(sys.argv[1] if len(sys.argv) > 1 else DEMO) as renderer:
    octree = renderer.model.octree
    print("frame   nodes touched   samples per level")
    for i, camera in enumerate(spiral(renderer.model.scene, n_frames=4, width=160, height=100)):
        counts = renderer.render_image(camera).stats.node_samples  # [n_nodes]
        assert counts is not None  # every executor counts
        per_level = np.bincount(octree.level.numpy(), weights=counts, minlength=octree.depth + 1).astype(int)
        print(f"{i:>5}   {(counts > 0).sum():>5} of {octree.n_nodes:<5}  {per_level.tolist()}")
