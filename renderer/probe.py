"""One pixel's ray, sample by sample: what a renderer saw there and why, by the torch reference."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..models.camera import Camera
from ..models.infnerf import InfNeRF
from ..models.marching import MarchSettings
from ..models.pynerf import PyNeRF
from ..models.volume import render_weights
from .cliutil import CAMERA_KEYS, whole_file
from .frame import RenderRequest
from .torch_executor import TorchExecutor


@dataclass(frozen=True, eq=False)
class RaySamples:
    """The samples of a ray, front to back; n of them, those behind the early stop too (`weight` 0)."""

    t: NDArray[np.float32]  # [n] distances of the middles, world units
    dt: NDArray[np.float32]  # [n] lengths, world units
    sigma: NDArray[np.float32]  # [n] densities, 1 / world unit
    rgb: NDArray[np.float32]  # [n, 3] in the scene's colour space
    alpha: NDArray[np.float32]  # [n]
    trans: NDArray[np.float32]  # [n] transmittance on arrival; 0: behind the early stop
    weight: NDArray[np.float32]  # [n] trans * alpha
    node: NDArray[np.int64]  # [n]
    level: NDArray[Any]  # [n] of the node; of a PyNeRF between two, float32
    wanted: NDArray[Any]  # [n] level asked for; above `level`: clamped
    footprint: NDArray[np.float32]  # [n] radius of the pixel's cone there, world units; of a PyNeRF its width
    gsd: NDArray[np.float32]  # [n] of that level, world units

    def __len__(self) -> int:
        return len(self.t)


@dataclass(frozen=True, eq=False)
class RayProbe:
    """A pixel and its ray."""

    pixel: tuple[int, int]  # column, row
    camera: Camera
    origin: NDArray[np.float64]  # [3] world
    direction: NDArray[np.float64]  # [3] unit
    color: NDArray[np.float32]  # [4] premultiplied, in the scene's colour space
    depth: float  # mean distance, world units; 0: nothing there
    samples: RaySamples
    unit: str  # of the world

    @property
    def heaviest(self) -> int | None:
        """Number of the sample with the largest weight; None where there is nothing."""
        weight = self.samples.weight
        return int(weight.argmax()) if len(weight) and weight.max() > 0 else None

    @property
    def position(self) -> NDArray[np.float64] | None:
        """[3] where the ray's light comes from on average, world units; None where there is nothing."""
        return self.origin + self.depth * self.direction if self.color[3] > 1e-6 else None

    def nodes(self) -> list[tuple[int, int, int, float]]:
        """The nodes that the ray crosses, in their order: (node, level, samples, sum of weights)."""
        order: dict[int, list[float]] = {}
        for node, level, weight in zip(self.samples.node, self.samples.level, self.samples.weight, strict=True):
            entry = order.setdefault(int(node), [int(level), 0, 0.0])
            entry[1] += 1
            entry[2] += float(weight)
        return [(node, int(level), int(count), weight) for node, (level, count, weight) in order.items()]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what `save_json` writes."""
        columns = {f.name: getattr(self.samples, f.name).tolist() for f in fields(RaySamples)}
        camera = {key: getattr(self.camera, key) for key in CAMERA_KEYS if key != "c2w"}
        return {
            "pixel": list(self.pixel),
            "camera": {"c2w": self.camera.c2w.tolist(), **camera},
            "unit": self.unit,
            "origin": self.origin.tolist(),
            "direction": self.direction.tolist(),
            "color": self.color.tolist(),
            "depth": self.depth,
            "position": None if self.position is None else self.position.tolist(),
            "nodes": [dict(zip(("node", "level", "samples", "weight"), node, strict=True)) for node in self.nodes()],
            "samples": columns,
        }

    def save_json(self, path: Path) -> None:
        """Writes the ray, whole or not at all. Raises `CommandError` if the file can't be written."""
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")


class Prober:
    """Traces rays of one model; keeps what all of them need."""

    def __init__(self, model: object) -> None:
        """Raises `ValueError` for a model whose rays have no packed samples."""
        if not isinstance(model, (InfNeRF, PyNeRF)):
            raise ValueError(f"rays are inspected in octrees and pyramids only, this model is a {type(model).__name__}")
        self.model = model
        self._executor = TorchExecutor(model)

    @torch.no_grad()
    def probe(self, request: RenderRequest, column: int, row: int) -> RayProbe:
        """The ray of one pixel, as the executors render it for this request.

        Raises `ValueError` for a pixel outside the image.
        """
        camera, model, executor = request.camera, self.model, self._executor
        if not (0 <= column < camera.width and 0 <= row < camera.height):
            size = f"{camera.width}x{camera.height}"
            raise ValueError(f"the pixel must lie in the image of {size}, got ({column}, {row})")
        x, y = torch.tensor([column]), torch.tensor([row])
        counters = y * camera.width + x
        directions, cones = executor.camera_rays(request, x, y, counters)
        settings = MarchSettings(
            request.frame, request.lod_bias, request.min_level, request.max_level, request.step_scale
        )
        origins = model.to_local(torch.from_numpy(camera.position.copy())[None]).to(executor.dtype)
        packed = model.march(origins, directions, cones, counters, settings, executor.space)
        sigma, rgb = model.answer(packed, directions.expand(len(packed), 3))
        ray = torch.zeros(len(packed), dtype=torch.long)
        weight, trans = render_weights(sigma, packed.dt, ray, 1, request.early_stop)
        total = weight.sum()
        color = torch.cat([(weight[:, None] * rgb).sum(0), total[None]])
        arrays = (
            packed.t, packed.dt, sigma, rgb, -torch.expm1(-sigma * packed.dt), trans, weight, packed.node, packed.level,
            packed.wanted, model.footprint(cones * packed.t), model.gsd(packed.level).float(),
        )  # fmt: skip
        depth = float((weight * packed.t).sum() / total) if total > 1e-6 else 0.0
        return RayProbe(
            (column, row), camera, camera.position.copy(), directions[0].double().numpy(), color.numpy(), depth,
            RaySamples(*(array.numpy() for array in arrays)), model.scene["unit"],
        )  # fmt: skip
