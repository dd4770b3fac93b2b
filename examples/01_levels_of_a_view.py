"""Which octree levels answer a view, and from what share of the tree: the O(log n) claim in one table.

python examples/01_levels_of_a_view.py [CHECKPOINT]
"""

import sys
from pathlib import Path

import numpy as np

from infnerf.models.infnerf import InfNeRF
from infnerf.renderer.executors import make_executor
from infnerf.renderer.frame import FrameBuffers, RenderRequest
from infnerf.renderer.paths import spiral

DEMO = Path(__file__).resolve().parents[1] / "assets" / "demo.pth"
model = InfNeRF.load(sys.argv[1] if len(sys.argv) > 1 else str(DEMO))
executor, _ = make_executor("auto", model)
levels = model.octree.level.numpy()
print("frame   nodes touched   samples per level")
for i, camera in enumerate(spiral(model.scene, n_frames=4, width=160, height=100)):
    stats = executor.render(RenderRequest(camera), FrameBuffers.allocate(160, 100))
    assert stats.node_samples is not None
    touched = int((stats.node_samples > 0).sum())
    per_level = np.bincount(levels, weights=stats.node_samples, minlength=model.octree.depth + 1).astype(int)
    print(f"{i:>5}   {touched:>5} of {model.octree.n_nodes:<5}  {per_level.tolist()}")
