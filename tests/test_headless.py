"""The viewer's work without a display: what it writes, that it needs no OpenGL, and what an interruption leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from infnerf.models.checkpoint import load_checkpoint, save_checkpoint
from infnerf.models.mipnerf import MipNeRF
from infnerf.models.mipnerf_config import MipNeRFConfig
from infnerf.renderer.accumulate import render_accumulated
from infnerf.renderer.cliutil import Interrupted
from infnerf.renderer.comparison import compose, psnr
from infnerf.renderer.frame import RenderRequest
from infnerf.renderer.pngmeta import read_metadata
from infnerf.renderer.renderer import Renderer
from infnerf.renderer.resolve import VIEW_MODES, ResolveSettings, resolve
from infnerf.renderer.video import VideoWriter
from infnerf.viewer import cli, headless
from infnerf.viewer.headless import HeadlessJob

TOOLKITS = ("OpenGL", "glfw", "imgui_bundle")
SIZE = (48, 32)


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def child_environment(**changes: str) -> dict[str, str]:
    """The environment without a display."""
    kept = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    return kept | changes


def test_headless_imports_no_toolkit(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """With all three made impossible to import, a still and a video come out all the same."""
    arguments = [str(tiny_checkpoint), "--headless", "--size", "32x24", "--samples", "1", "--frames", "2"]
    code = f"""
import sys
for name in {TOOLKITS!r}:
    sys.modules[name] = None
from infnerf.viewer.cli import main
sys.exit(main({arguments!r} + ["--screenshot", "a.png", "--record", "a.mp4"]))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=child_environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "a.png"]
    assert frames_in(tmp_path / "a.mp4") == 2


def test_without_a_display_it_says_so_and_works_headless(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    arguments = [str(tiny_checkpoint), "--size", "32x18", "--frames", "4", "--samples", "1"]
    assert cli.main(arguments) == 0
    err = capsys.readouterr().err
    assert err.startswith("No display: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["infnerf-view.mp4", "infnerf-view.png"]
    assert frames_in(tmp_path / "infnerf-view.mp4") == 4
    assert Image.open(tmp_path / "infnerf-view.png").size == (32, 18)


@pytest.mark.parametrize("mode", VIEW_MODES)
def test_a_still_is_the_accumulated_view_through_the_resolve_step(
    tiny_checkpoint: Path, tmp_path: Path, mode: str
) -> None:
    out = tmp_path / "still.png"
    arguments = [str(tiny_checkpoint), "--screenshot", str(out), "--view", mode, "--size", "48x32", "--samples", "2"]
    assert cli.main(arguments) == 0
    with Renderer.from_checkpoint(tiny_checkpoint) as renderer:
        camera = renderer.home_camera(*SIZE)
        buffers, _ = render_accumulated(renderer.executor, RenderRequest(camera), 2)
        expected = resolve(buffers, ResolveSettings.for_model(renderer.model, mode, camera.position))
    np.testing.assert_array_equal(np.asarray(Image.open(out)), expected)


def test_a_still_knows_its_pose(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The pose stored in a still, given back by --camera, gives the same still."""
    first, again, pose = tmp_path / "first.png", tmp_path / "again.png", tmp_path / "pose.json"
    arguments = [str(tiny_checkpoint), "--size", "48x32", "--samples", "1", "--screenshot"]
    assert cli.main([*arguments, str(first)]) == 0
    pose.write_text(read_metadata(first)["camera"])
    assert json.loads(pose.read_text())["width"] == 48
    assert cli.main([*arguments, str(again), "--camera", str(pose)]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(first)), np.asarray(Image.open(again)))


def test_exposure_and_level_bias_reach_the_picture(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pictures = []
    for extra in ([], ["--exposure", "-3"], ["--lod-bias", "-2"]):
        out = tmp_path / "still.png"
        assert (
            cli.main([str(tiny_checkpoint), "--size", "48x32", "--screenshot", str(out), "--samples", "1", *extra]) == 0
        )
        pictures.append(np.asarray(Image.open(out)).astype(int))
    assert np.abs(pictures[1] - pictures[0]).max() > 20
    assert np.abs(pictures[2] - pictures[0]).max() > 2


def test_a_spiral_into_a_folder_of_pngs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    arguments = [str(tiny_checkpoint), "--record", str(folder), "--path", "spiral", "--frames", "3", "--samples", "1"]
    assert cli.main([*arguments, "--size", "32x18"]) == 0
    assert [path.name for path in sorted(folder.iterdir())] == [f"frame_{i:05d}.png" for i in range(3)]


def test_outputs_that_can_not_be_written_are_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path
) -> None:
    for flag, name in (("--screenshot", "x.png"), ("--record", "x.mp4")):
        assert cli.main([str(tiny_checkpoint), flag, str(tmp_path / "missing" / name)]) == 1
        assert "missing does not exist" in capsys.readouterr().err
    assert cli.main([str(tiny_checkpoint), "--record", str(tmp_path / "x.gif"), "--size", "8x8"]) == 1
    assert ".mp4" in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_video_keeps_its_frames(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cut.mp4"
    job = HeadlessJob(tiny_checkpoint, frames=9, video_size=(32, 18), video_samples=1, record=out)
    write, written = VideoWriter.write, []

    def interrupting(self: VideoWriter, image: np.ndarray) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(image)
        write(self, image)

    monkeypatch.setattr(VideoWriter, "write", interrupting)
    with pytest.raises(Interrupted, match=r"cut\.mp4 keeps the first 3 of 9 frames"):
        headless.run_headless(job)
    assert frames_in(out) == 3


def test_ctrl_c_ends_a_long_job_with_130(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A real signal to a real process, in the middle of a video that would take minutes."""
    arguments = ["--record", "long", "--frames", "3000", "--size", "64x36", "--samples", "1"]
    code = "import sys; from infnerf.viewer.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tiny_checkpoint), *arguments],
        cwd=tmp_path,
        env=child_environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "long" / "frame_00002.png").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "stopped by Ctrl-C; long keeps the first" in err
    assert "Traceback" not in err
    names = sorted(path.name for path in (tmp_path / "long").iterdir())
    assert len(names) >= 3
    assert names == [f"frame_{i:05d}.png" for i in range(len(names))]


def test_an_automatic_job_fits_its_budget(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow machines get smaller videos and fewer samples, fast ones what was asked for."""
    job = headless.automatic(HeadlessJob(tiny_checkpoint), fit=True)
    assert (job.screenshot, job.record, job.fit) == (headless.STILL, headless.VIDEO, True)
    with Renderer.from_checkpoint(tiny_checkpoint) as renderer:
        per_pixel = 0.0
        monkeypatch.setattr(headless, "frame_seconds", lambda _s, camera, _b: per_pixel * camera.width * camera.height)
        per_pixel = 1e-9
        fast = headless.fitted(renderer, job)
        per_pixel = 1e-5
        slow = headless.fitted(renderer, job)
    assert (fast.video_size, fast.frames, fast.samples) == ((640, 360), headless.MOST_FRAMES, 16)
    assert (slow.video_size, slow.frames, slow.samples) == ((202, 112), headless.LEAST_FRAMES, 1)


def test_an_automatic_job_of_a_slow_model_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stills shrink too, and it is timed on a frame so small that timing takes no time."""
    config = MipNeRFConfig(net_depth=2, skip_layer=1, net_width=8, view_width=8, max_deg=4, num_samples=4)
    save_checkpoint(MipNeRF(config).checkpoint(), tmp_path / "m.pth")
    with Renderer.from_checkpoint(tmp_path / "m.pth") as renderer:
        assert headless.frame_seconds(renderer, renderer.home_camera(1280, 720), 0.0) > 0
        monkeypatch.setattr(headless, "frame_seconds", lambda _s, camera, _b: 5e-3 * camera.width * camera.height)
        job = headless.fitted(renderer, headless.automatic(HeadlessJob(tmp_path / "m.pth"), fit=True))
    assert job.size[0] * job.size[1] <= 2000
    assert job.video_size is not None
    assert job.video_size[1] >= headless.SLOW_HEIGHT
    assert (job.samples, job.video_samples, job.frames) == (1, 1, headless.LEAST_FRAMES)


def test_the_estimate_of_a_frames_time_is_of_the_whole_frame(tiny_checkpoint: Path) -> None:
    with Renderer.from_checkpoint(tiny_checkpoint) as renderer:
        rows: list[int] = []

        class Counting:
            def render(self, request: RenderRequest, _: object) -> None:
                rows.append(request.bounds[3] - request.bounds[1])

        renderer.executor.close()
        renderer.executor = Counting()  # type: ignore[assignment]
        camera = renderer.home_camera(64, 64)
        assert headless.frame_seconds(renderer, camera, 0.0) > 0
        renderer.executor = type("Closed", (), {"close": lambda _: None})()
    assert rows == [2] * 5  # a warm-up and four bands


def test_an_explicit_output_is_left_alone(tiny_checkpoint: Path) -> None:
    job = HeadlessJob(tiny_checkpoint, record=Path("x.mp4"))
    assert headless.automatic(job, fit=True) is job


def test_a_window_without_its_libraries_names_the_line_that_installs_them(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    code = f"""
import sys
sys.modules["OpenGL"] = None
from infnerf.viewer.cli import main
sys.exit(main([{str(tiny_checkpoint)!r}, "--no-settings"]))
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=child_environment(DISPLAY=":0"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("infnerf-view: ")
    assert "apt-get install -y libgl1 libegl1 libgl1-mesa-dri" in line
    assert "--headless" in line


@pytest.mark.needs("gl")
def test_a_display_that_does_not_answer(tiny_checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from infnerf.viewer.cli import main; sys.exit(main())"]
    environment = child_environment(DISPLAY=":4711")
    result = subprocess.run(
        [*command, str(tiny_checkpoint), "--no-settings"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert ":4711" in line
    assert "--headless" in line


def test_a_window_refuses_flags_that_it_would_ignore(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISPLAY", ":4711")
    assert cli.main([str(tiny_checkpoint), "--frames", "9", "--exposure", "1"]) == 2
    assert "--frames, --exposure: only with --headless" in capsys.readouterr().err


def test_a_still_averages_as_many_frames_as_a_window_at_rest(tiny_checkpoint: Path) -> None:
    from infnerf.viewer.state import ViewerState

    assert HeadlessJob(tiny_checkpoint).samples == ViewerState().max_frames


@pytest.mark.parametrize("mode", ["wipe", "side-by-side", "difference", "error"])
def test_two_scenes_make_one_still(
    tiny_checkpoint: Path, tmp_path: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other, out = tmp_path / "other.pth", tmp_path / "out.png"
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.field["tables"] = checkpoint.field["tables"] * 0.5
    save_checkpoint(checkpoint, other)
    arguments = [str(tiny_checkpoint), str(other), "--compare", mode, "--screenshot", str(out), "--samples", "1"]
    assert cli.main([*arguments, "--size", "48x32"]) == 0
    said = capsys.readouterr().err
    assert "PSNR" in said
    width = 24 if mode == "side-by-side" else 48
    pictures = []
    for path in (tiny_checkpoint, other):
        with Renderer.from_checkpoint(path) as renderer:
            pictures.append(renderer.render_image(renderer.home_camera(width, 32), 1).picture())
    assert psnr(*pictures) < 60
    with Image.open(out) as image:
        np.testing.assert_array_equal(np.asarray(image), compose(mode.replace("-", " "), *pictures))
    assert read_metadata(out)["right"] == "other.pth"
