"""Every view mode of a scene, from the air and from the street, as the pictures in docs/images show them.

python examples/02_every_view_mode.py [CHECKPOINT] [FOLDER] [WIDTHxHEIGHT]
"""

import sys
import tempfile
from pathlib import Path

from infnerf.models import Camera, load_checkpoint
from infnerf.renderer import DEMO, VIEW_MODES, Renderer

STREET = "street_006.png"  # among the demo's training cameras

arguments = dict(enumerate(sys.argv))
folder = Path(arguments.get(2) or tempfile.mkdtemp())
width, height = map(int, arguments.get(3, "160x100").split("x"))
checkpoint = load_checkpoint(arguments.get(1, DEMO))
with Renderer.from_checkpoint(checkpoint) as renderer:
    views = {"aerial": renderer.home_camera(width, height)}
    if seen := checkpoint.cameras.get(STREET) or next(iter(checkpoint.cameras.values()), None):
        views["street"] = Camera.from_fov(seen.c2w, seen.fov_y, width, height)
    for name, camera in views.items():
        image = renderer.render_image(camera, samples=16 if width > 200 else 1)  # one render serves all modes
        for mode in VIEW_MODES:
            image.save_png(folder / f"{name}-{mode}.png", mode)
print(f"{len(views) * len(VIEW_MODES)} pictures in {folder}")
