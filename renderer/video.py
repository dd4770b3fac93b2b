"""Frames to a video file (PyAV) or to a folder of PNGs; what was finished before an interruption stays playable."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cliutil import CommandError, temporary_beside
from .pngmeta import save_png

#: Container suffix -> encoders to try, best first. libx264 is in PyAV's wheels; mpeg4 is in every build of FFmpeg.
VIDEO_SUFFIXES = {".mp4": ("libx264", "mpeg4"), ".mkv": ("libx264", "mpeg4"), ".mov": ("libx264", "mpeg4")}
QUALITY = {"libx264": {"crf": "18", "preset": "medium"}, "mpeg4": {"q:v": "2"}}
BT709 = 1  # FFmpeg's number for the primaries, transfer and matrix of BT.709, and for limited range


class VideoWriter:
    """Writes [height, width, 3] uint8 frames, row 0 at the top, to `path`, in a `with` block.

    A path with the suffix .mp4, .mkv or .mov becomes a video: H.264, or MPEG-4 where FFmpeg has no H.264 encoder, in
    yuv420p, tagged and converted as BT.709. Odd sizes are padded by repeating the last row or column. A path without a
    suffix is a folder of `frame_00000.png` and so on. A video is written beside `path` and renamed at the end; if the
    block is left by an exception (Ctrl-C too), the frames so far are finished into a playable file, none: no file.

    Raises `CommandError` at the start for a suffix, size, folder or encoder that can't work.
    """

    def __init__(self, path: str | os.PathLike[str], width: int, height: int, fps: float = 30.0) -> None:
        self.path = Path(path)
        self.width, self.height = width, height
        self.frames = 0
        self.codec = "png"
        if width < 1 or height < 1:
            raise CommandError(f"{self.path}: a video needs a size of at least 1x1, got {width}x{height}")
        if not 0 < fps <= 1000:
            raise CommandError(f"{self.path}: frames per second must be above 0 and at most 1000, got {fps:g}")
        self._rate = Fraction(fps).limit_denominator(1001)
        self._container: Any = None
        self._stream: Any = None
        if self.path.is_dir() or not self.path.suffix:
            self.path.mkdir(parents=True, exist_ok=True)
        elif self.path.suffix.lower() in VIDEO_SUFFIXES:
            self._temporary = temporary_beside(self.path)
            self._open()
        else:
            known = ", ".join(VIDEO_SUFFIXES)
            raise CommandError(f"{self.path}: a video must end in {known}, or be a folder for PNGs")

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._container is None:
            return
        try:
            if self.frames:
                for packet in self._stream.encode():
                    self._container.mux(packet)
            self._container.close()
            if self.frames:
                os.replace(self._temporary, self.path)
        finally:
            with contextlib.suppress(OSError):
                self._temporary.unlink()

    def write(self, image: NDArray[np.uint8]) -> None:
        """Appends a frame. Raises `ValueError` for another shape or type, `OSError` if the disk is full."""
        if image.shape != (self.height, self.width, 3) or image.dtype != np.uint8:
            expected = f"[{self.height}, {self.width}, 3] uint8"
            raise ValueError(f"VideoWriter: a frame must be {expected}, got {list(image.shape)} {image.dtype}")
        if self._container is None:
            save_png(self.path / f"frame_{self.frames:05d}.png", image, {})
        else:
            import av
            from av.video.reformatter import ColorRange, Colorspace

            even = np.pad(image, ((0, self.height % 2), (0, self.width % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            frame.pts = self.frames
            frame.time_base = 1 / self._rate
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        self.frames += 1

    def _open(self) -> None:
        """Opens the file and the first encoder that this FFmpeg has; it refuses now, not at frame 1."""
        import av

        encoders = VIDEO_SUFFIXES[self.path.suffix.lower()]
        available = [name for name in encoders if name in av.codecs_available and _can_encode(name)]
        if not available:
            raise CommandError(
                f"{self.path}: PyAV's FFmpeg has no encoder of {', '.join(encoders)}; give a folder for PNGs"
            )
        self.codec = available[0]
        try:
            self._container = av.open(str(self._temporary), "w")
            self._stream = self._container.add_stream(self.codec, rate=self._rate, options=dict(QUALITY[self.codec]))
            self._stream.width = self.width + self.width % 2
            self._stream.height = self.height + self.height % 2
            self._stream.pix_fmt = "yuv420p"
            context = self._stream.codec_context
            context.color_primaries = context.color_trc = context.colorspace = context.color_range = BT709
            self._container.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            if self._container is not None:
                self._container.close()
                self._container = None
            with contextlib.suppress(OSError):
                self._temporary.unlink()
            why = error.strerror if isinstance(error, OSError) else error
            size = f"{self.width}x{self.height}"
            raise CommandError(f"{self.path}: the encoder {self.codec} refuses {size} pixels: {why}") from error


def _can_encode(name: str) -> bool:
    import av

    try:
        return bool(av.Codec(name, "w").is_encoder)
    except (av.FFmpegError, ValueError):
        return False
