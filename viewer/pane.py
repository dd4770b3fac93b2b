"""One side on the screen: what it is to show, the picture of it that is there, and the figures of that picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..renderer.scheduler import Snapshot, View
from .loaded import Loaded
from .photographs import Photograph
from .picture import Picture
from .scene import LoadedScene


@dataclass(frozen=True)
class Figures:
    """What a picture cost."""

    ms: float  # of work on the newest frame, waiting for its turn left out
    width: int  # px of that frame
    height: int
    active: int | None  # parameters of the nodes that answered samples of it; None: not told
    parameters: int  # of the model


class Pane:
    """Shows a scene or a photograph. Needs a current GL context."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.loaded: Loaded | None = None
        self.photograph: Photograph | None = None
        self.figures: Figures | None = None
        self._told: Snapshot | None = None  # newest picture taken in
        self._since = 0  # pictures up to this number were made before this pane looked, ...
        self._foreign = False  # ... of another scene

    @property
    def snapshot(self) -> Snapshot | None:
        return self.picture.snapshot

    @property
    def name(self) -> str:
        """Of what is to be shown."""
        if self.photograph is not None:
            return self.photograph.name
        return self.loaded.name if self.loaded is not None else ""

    def look_at(self, loaded: Loaded) -> None:
        """A scene from now on; what was shown stays until there is a picture of it."""
        if loaded is self.loaded and self.photograph is None:
            return
        self.loaded, self.photograph, self.figures, self._told = loaded, None, None, None
        self._since, self._foreign = loaded.sequence, False
        self.picture.replace(loaded.scene)

    def look_at_photograph(self, photograph: Photograph | None, leading: LoadedScene, view: View | None) -> None:
        """A photograph, on the background of the scene that it is compared with; None: it is not read yet."""
        if self.loaded is None and photograph is self.photograph and self._told is not None and view is self._told.view:
            return
        self.loaded, self.photograph, self.figures, self._told = None, photograph, None, None
        if photograph is None or view is None:
            self.picture.clear()
            return
        self._told = photograph.snapshot(view)
        self.picture.replace(leading, photograph=True)
        self.picture.show(self._told)

    def reopen(self, loaded: Loaded, keep: bool) -> None:
        """Another file took the place of the scene; `keep`: a later one of the same training, the old one stays."""
        self.loaded, self.photograph, self.figures, self._told = loaded, None, None, None
        self._since, self._foreign = loaded.sequence, True
        if keep:
            self.picture.replace(loaded.scene)
        else:
            self.picture.open(loaded.scene)

    def take_in(self, view: View | None) -> Snapshot | None:
        """Shows the scene's newest picture. Returns it if it is new here.

        One that was made before this pane looked is of the view of then: it counts only if that is the view of now.
        """
        snapshot = self.loaded.renderer.latest() if self.loaded is not None else None
        if self.loaded is None or snapshot is None or snapshot is self._told:
            return None
        if snapshot.sequence <= self._since and (self._foreign or not snapshot.view.shows_same(view)):
            return None
        self._told = snapshot
        self.picture.show(snapshot)
        self.figures = figures(snapshot, self.loaded.scene, self.figures)
        return snapshot


def figures(snapshot: Snapshot, scene: LoadedScene, before: Figures | None = None) -> Figures:
    """Of a new picture. A part of one keeps the nodes that were known `before`."""
    samples = snapshot.stats.node_samples
    active = before.active if before is not None else None
    if samples is not None and len(samples) == len(scene.levels):
        used = np.bincount(scene.levels[np.asarray(samples) > 0], minlength=len(scene.level_counts))
        active = scene.parameters_of(used.tolist())
    return Figures(snapshot.frame_ms, snapshot.width, snapshot.height, active, scene.n_parameters)
