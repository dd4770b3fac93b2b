"""Every view mode of a scene, from the air and from the street, as the pictures in docs/images show them.

python examples/02_every_view_mode.py [CHECKPOINT] [FOLDER] [WIDTHxHEIGHT]
"""

import sys
import tempfile
from pathlib import Path

from infnerf.models.camera import Camera
from infnerf.models.checkpoint import camera_from_entry
from infnerf.renderer.offline import open_scene
from infnerf.renderer.paths import home_camera
from infnerf.renderer.pngmeta import save_png
from infnerf.renderer.resolve import VIEW_MODES

DEMO = Path(__file__).resolve().parents[1] / "assets" / "demo.pth"
STREET = "street_006.png"  # among the demo's training cameras

arguments = dict(enumerate(sys.argv))
folder = Path(arguments.get(2) or tempfile.mkdtemp())
width, height = map(int, arguments.get(3, "160x100").split("x"))
with open_scene(arguments.get(1, DEMO)) as scene:
    known = {entry["name"]: camera_from_entry(entry) for entry in scene.model.scene["cameras"]}
    seen = known.get(STREET) or next(iter(known.values()))
    views = {
        "aerial": home_camera(scene.model.scene, scene.checkpoint.view, width, height),
        "street": Camera.from_fov(seen.c2w, seen.fov_y, width, height),
    }
    for name, camera in views.items():
        buffers, _ = scene.render(camera, samples=16 if width > 200 else 1)  # one render serves all modes
        for mode in VIEW_MODES:
            save_png(folder / f"{name}-{mode}.png", scene.picture(buffers, camera, mode), {})
print(f"{len(views) * len(VIEW_MODES)} pictures in {folder}")
