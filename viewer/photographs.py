"""The data set whose photographs may be one side. Files are opened in the worker's thread only.

A photograph is shown through the pinhole that the renderers have: one that was taken by a pinhole as it is, any other
undistorted (`data/pinhole.py`, as evaluation has it); pixels that its lens or its mask leaves out count nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.camera import Camera
from ..models.similarity import place_of
from ..renderer.frame import FrameBuffers, RenderStats
from ..renderer.scheduler import Snapshot, View
from .notices import Notices
from .scene import LoadedScene
from .session import sentence
from .worker import Done, Worker


@dataclass(frozen=True, eq=False)
class Photograph:
    """One image at the size at which it is compared."""

    number: int  # in the data set
    name: str
    camera: Camera  # pinhole, of this size
    buffers: FrameBuffers  # `color`, and `samples`: 1 where the photograph has a pixel that counts
    whole: bool  # every pixel counts

    @property
    def known(self) -> NDArray[np.bool_] | None:
        """[H, W] pixels that count; None: all."""
        return None if self.whole else self.buffers.samples > 0

    def snapshot(self, view: View) -> Snapshot:
        """The photograph as the picture of a view, whose camera is its own."""
        size = self.camera.width, self.camera.height
        return Snapshot(self.buffers, view, *size, 1.0, "idle", 1, 1, RenderStats(), 0.0)


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """A data set's images, of all splits."""

    path: Path
    names: list[str]
    images: list[Path]
    masks: list[Path | None]
    cameras: list[Camera]
    warnings: list[str]

    def __len__(self) -> int:
        return len(self.names)


def open_data(path: Path, scene: dict[str, Any]) -> PhotoSet:
    """The images of a data set in the coordinates of a checkpoint's `scene`. Slow. Raises `DatasetError`."""
    from ..data.dataset import load_dataset

    # A format without coordinates of its own is placed by its own points: the checkpoint says where it was put.
    data = load_dataset(path, "all", place_of(scene))
    masks = data.masks or [None] * len(data)
    return PhotoSet(Path(path), data.names, data.images, masks, data.cameras, data.warnings)


def read_photograph(data: PhotoSet, number: int, factor: int, size: tuple[int, int], color_space: str) -> Photograph:
    """One image, undistorted, averaged over blocks of `factor` px a side, then to `size` px where that is less.

    Slow. Raises `DatasetError` for one that can't be read.
    """
    from ..data.masks import coverage
    from ..data.pinhole import pinhole_truth
    from ..data.pixels import box_average, box_camera, read_image
    from ..data.ply import DatasetError

    path, camera = data.images[number], data.cameras[number]
    try:
        image = read_image(path, color_space)
    except (OSError, ValueError, SyntaxError) as error:
        raise DatasetError(f"{path}: expected an image that opens, found: {error}") from error
    if image.shape[:2] != (camera.height, camera.width):
        found = f"{image.shape[1]}x{image.shape[0]}"
        raise DatasetError(f"{path}: expected {camera.width}x{camera.height} as it was, found {found}")
    image, known = pinhole_truth(image, camera, coverage(camera, data.masks[number]))
    buffers = FrameBuffers.allocate(*size)
    buffers.color[:] = area_average(box_average(image, factor), size)
    share = area_average(box_average(known[..., None].astype(np.float32), factor), size)[..., 0]
    buffers.samples[:] = share > 1 - 1e-4  # a part would not be the pixel's mean
    whole = bool(buffers.samples.all())
    return Photograph(number, data.names[number], box_camera(camera, factor).pinhole().resized(*size), buffers, whole)


def area_average(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """`image` [H, W, C] at `size` (width, height) px: each pixel the mean of what it covers.

    >>> area_average(np.arange(4, dtype=np.float32).reshape(1, 4, 1), (2, 1))[0, :, 0].tolist()
    [0.5, 2.5]
    """
    from PIL import Image

    if size == (image.shape[1], image.shape[0]):
        return image
    channels = [Image.fromarray(np.ascontiguousarray(image[..., c])) for c in range(image.shape[2])]
    return np.stack([np.asarray(c.resize(size, Image.Resampling.BOX), np.float32) for c in channels], axis=-1)


class Photographs:
    """Opens in the background; `taken` in the window's thread gets what was finished."""

    def __init__(self, worker: Worker, notices: Notices) -> None:
        self._worker, self._notices = worker, notices
        self.data: PhotoSet | None = None
        self.ready: Photograph | None = None  # the newest that was read
        self._opening: tuple[int, Path] = (0, Path())
        self._wanted: tuple[Any, ...] = ()  # what the newest job reads
        self.handlers: dict[str, Callable[[Done], None]] = {"data": self._opened, "photograph": self._read}

    @property
    def loading(self) -> str:
        """Name of the data set that is being opened, empty when none is."""
        return self._opening[1].name if self._worker.pending("data") else ""

    def open(self, path: str | Path, scene: LoadedScene) -> None:
        """Opens a data set for the world of a scene; the present one stays until the new one is there."""
        path, facts = Path(path).expanduser(), scene.model.scene
        self._opening = (self._worker.submit("data", lambda: open_data(path, facts)), path)

    def want(self, number: int, factor: int, size: tuple[int, int], scene: LoadedScene) -> None:
        """Reads an image by a factor at a size in a scene's colour space, unless that was asked for last."""
        data, color_space = self.data, scene.model.scene["color_space"]
        wanted = (data, number, factor, size, color_space)
        if data is None or wanted == self._wanted:
            return
        self._wanted = wanted
        job = lambda: (wanted, read_photograph(data, number, factor, size, color_space))  # noqa: E731
        self._worker.submit("photograph", job)

    def camera(self, number: int) -> Camera | None:
        """The pinhole of an image at its own size; None where there is no such image."""
        if self.data is None or not 0 <= number < len(self.data):
            return None
        return self.data.cameras[number].pinhole()

    def at_hand(self, number: int, size: tuple[int, int]) -> Photograph | None:
        """The image at a size, if it was read."""
        ready = self.ready
        if ready is None or ready.number != number or (ready.camera.width, ready.camera.height) != size:
            return None
        return ready

    def _opened(self, done: Done) -> None:
        if done.serial != self._opening[0]:  # another one was asked for since
            return
        if done.error is not None:
            self._notices.error(sentence(done.error))
            return
        self.data, self.ready, self._wanted = done.value, None, ()
        lenses = sum(not camera.is_pinhole for camera in done.value.cameras)
        note = f", {lenses} of them undistorted" if lenses else ""
        self._notices.add(f"{done.value.path.name}: {len(done.value)} photographs{note}.")
        for warning in done.value.warnings[:2]:
            self._notices.add(warning)

    def _read(self, done: Done) -> None:
        if done.error is not None:
            self._notices.error(sentence(done.error))
        elif done.value[0] == self._wanted:
            self.ready = done.value[1]
