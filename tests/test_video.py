"""The video writer: what it writes can be played, an interruption keeps the frames so far, and refusals come first."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from infnerf.renderer.cliutil import CommandError
from infnerf.renderer.video import VideoWriter


def frame(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Left half of a colour that tells the number, right half grey."""
    image = np.full((height, width, 3), 128, np.uint8)
    image[:, : width // 2] = (10 * number, 200 - 10 * number, 60)
    return image


def decoded(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [np.asarray(image.to_ndarray(format="rgb24"), np.uint8) for image in container.decode(video=0)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_frames_come_back_in_order_and_in_colour(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with VideoWriter(path, 64, 48, fps=24) as writer:
        for number in range(12):
            writer.write(frame(number, 64, 48))
    images = decoded(path)
    assert len(images) == 12
    for number, image in enumerate(images):
        np.testing.assert_allclose(image[8:-8, 8:24].mean(axis=(0, 1)), frame(number, 64, 48)[0, 0], atol=6)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 24
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_odd_sizes_are_padded_by_one(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    with VideoWriter(path, 33, 17) as writer:
        writer.write(frame(1, 33, 17))
    assert decoded(path)[0].shape == (18, 34, 3)


def test_an_interruption_keeps_the_frames_so_far(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"

    def interrupted() -> None:
        with VideoWriter(path, 32, 32) as writer:
            writer.write(frame(1, 32, 32))
            writer.write(frame(2, 32, 32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(decoded(path)) == 2


def test_no_frame_no_file_and_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "old.mp4"
    path.write_bytes(b"an older video")
    with pytest.raises(RuntimeError, match="early"), VideoWriter(path, 32, 32):
        raise RuntimeError("early")
    assert path.read_bytes() == b"an older video"
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_is_at_the_path_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "late.mp4"
    with VideoWriter(path, 32, 32) as writer:
        writer.write(frame(1, 32, 32))
        assert not path.exists()
    assert path.exists()


def test_a_folder_takes_numbered_pngs_bit_for_bit(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    with VideoWriter(folder, 9, 7) as writer:
        for number in range(3):
            writer.write(frame(number, 9, 7))
    assert sorted(p.name for p in folder.iterdir()) == [f"frame_{i:05d}.png" for i in range(3)]
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "frame_00002.png")), frame(2, 9, 7))


@pytest.mark.parametrize(
    ("name", "size", "fps", "message"),
    [
        ("x.gif", (8, 8), 30, r"\.mp4, \.mkv, \.mov"),
        ("missing/x.mp4", (8, 8), 30, "does not exist"),
        ("x.mp4", (0, 8), 30, "1x1, got 0x8"),
        ("x.mp4", (100_000, 100_000), 30, "refuses 100000x100000"),
        ("x.mp4", (8, 8), 0, "frames per second"),
        ("x.mp4", (8, 8), float("nan"), "frames per second"),
    ],
)
def test_refusals_come_at_the_start(tmp_path: Path, name: str, size: tuple[int, int], fps: float, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        VideoWriter(tmp_path / name, *size, fps=fps)
    assert list(tmp_path.iterdir()) == []


def test_a_frame_of_another_shape_is_refused(tmp_path: Path) -> None:
    with (
        VideoWriter(tmp_path / "x.mp4", 8, 8) as writer,
        pytest.raises(ValueError, match=r"\[8, 8, 3\] uint8, got \[4, 8, 3\]"),
    ):
        writer.write(frame(0, 8, 4))
