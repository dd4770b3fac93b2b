"""Render one view of a checkpoint and save it: the smallest use of the library.

python examples/00_render_a_view.py [CHECKPOINT] [OUT.png]
"""

import sys

from infnerf.renderer import DEMO, Renderer, orbit

arguments = dict(enumerate(sys.argv))
out = arguments.get(2, "view.png")
with Renderer.from_checkpoint(arguments.get(1, DEMO)) as renderer:
    camera = orbit(renderer.model.scene, n_frames=8, width=320, height=200)[1]
    image = renderer.render_image(camera, samples=2)
    image.save_png(out)
    print(f"{out}: {image.stats.samples} samples, {renderer.reason}")
