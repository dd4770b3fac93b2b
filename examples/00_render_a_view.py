"""Render one view of a checkpoint and save it: the smallest use of the library.

python examples/00_render_a_view.py [CHECKPOINT] [OUT.png]
"""

import sys
from pathlib import Path

from infnerf.models.infnerf import InfNeRF
from infnerf.renderer.accumulate import render_accumulated
from infnerf.renderer.executors import make_executor
from infnerf.renderer.frame import RenderRequest
from infnerf.renderer.paths import orbit
from infnerf.renderer.pngmeta import save_png
from infnerf.renderer.resolve import ResolveSettings, resolve

DEMO = Path(__file__).resolve().parents[1] / "assets" / "demo.pth"
checkpoint = sys.argv[1] if len(sys.argv) > 1 else str(DEMO)
out = Path(sys.argv[2] if len(sys.argv) > 2 else "view.png")

model = InfNeRF.load(checkpoint)
executor, why = make_executor("auto", model)
camera = orbit(model.scene, n_frames=8, width=320, height=200)[1]
buffers, stats = render_accumulated(executor, RenderRequest(camera), 2)
save_png(out, resolve(buffers, ResolveSettings.for_model(model)), {"executor": why})
print(f"{out}: {stats.samples} samples, {why}")
