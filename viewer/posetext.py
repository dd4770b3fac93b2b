"""A camera pose as text for the clipboard, in OpenCV or OpenGL axes."""

from __future__ import annotations

import json
import re

import numpy as np
from numpy.typing import NDArray

from ..models.camera import OPENGL_FLIP, Camera
from ..renderer.cliutil import camera_json

CONVENTIONS = ("OpenCV", "OpenGL")


def in_convention(c2w: NDArray, convention: str) -> NDArray[np.float64]:
    """An OpenCV pose [4, 4] in the axes of `convention`; its own inverse.

    >>> in_convention(np.eye(4), "OpenGL").diagonal().tolist()
    [1.0, -1.0, -1.0, 1.0]
    """
    return c2w @ OPENGL_FLIP if convention == "OpenGL" else np.array(c2w, np.float64)


def format_pose(camera: Camera, convention: str) -> str:
    """JSON of a camera. In OpenCV axes it is what `infnerf render --camera` reads."""
    if convention == "OpenCV":
        return camera_json(camera)
    values = {"convention": convention.lower(), **json.loads(camera_json(camera))}
    values["c2w"] = in_convention(camera.c2w, convention).tolist()
    return json.dumps(values)


def parse_pose(text: str, convention: str) -> tuple[NDArray[np.float64], float | None]:
    """(c2w [4, 4] in OpenCV axes, vertical field of view, degrees or None) of `format_pose`'s JSON or 12 or 16 numbers.

    Numbers alone are in the axes of `convention`, JSON in those that it names. Raises `ValueError` with one sentence.

    >>> parse_pose("1 0 0 5  0 1 0 6  0 0 1 7", "OpenCV")[0][:3, 3].tolist()
    [5.0, 6.0, 7.0]
    """
    fov = None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if isinstance(values, dict):
        if "c2w" not in values:
            raise ValueError("The clipboard's JSON has no c2w.")
        named = str(values.get("convention", "opencv")).lower()
        convention = "OpenGL" if named == "opengl" else "OpenCV"
        fov = _field_of_view(values)
        values = values["c2w"]
    try:
        numbers = [float(x) for x in re.findall(r"[^\s,;\[\]()]+", text)] if values is None else values
        matrix = np.asarray(numbers, np.float64)
    except (ValueError, TypeError):
        raise ValueError("The clipboard holds no pose: expected JSON with c2w, or 12 or 16 numbers.") from None
    if matrix.size not in (12, 16):
        raise ValueError(f"The clipboard holds no pose: expected 12 or 16 numbers, found {matrix.size}.")
    pose = np.eye(4)
    pose[:3] = matrix.reshape(-1, 4)[:3]
    pose = in_convention(pose, convention)
    try:
        Camera(pose, 1.0, 1.0, 0.5, 0.5, 1, 1)
    except ValueError as error:
        raise ValueError(f"The pasted pose is not one: {str(error).removeprefix('Camera: ')}.") from None
    return pose, fov


def _field_of_view(values: dict) -> float | None:
    fy, height = (values.get(key) for key in ("fy", "height"))
    numbers = [x for x in (fy, height) if isinstance(x, (int, float)) and 0 < x < 1e9]
    if len(numbers) < 2:
        return None
    return float(np.clip(np.degrees(2 * np.arctan(0.5 * numbers[1] / numbers[0])), 5.0, 150.0))
