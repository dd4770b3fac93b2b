"""The camera panel: the pose in OpenCV and OpenGL axes, copy and paste, the lens, navigation, bookmarks."""

from __future__ import annotations

from .. import theme
from ..posetext import CONVENTIONS, in_convention
from ..state import limits
from . import Context, widgets

TITLE = "Camera"
FOV_LIMITS = (5.0, 150.0)  # degrees
N_BOOKMARKS = 9


def draw(context: Context) -> None:
    """Pose, lens, navigation and bookmarks."""
    from imgui_bundle import imgui

    state, rig = context.state, context.state.camera
    step = 0.002 * max(context.monitor.reference, 1e-6)
    if (position := widgets.vector("camera_position", "Position", rig.position, step, "%.3f")) is not None:
        context.actions["move_to"](position)
    rig.fov_y = widgets.slider(
        "camera_fov", "Field of view", rig.fov_y, FOV_LIMITS, "%.1f deg", tip="Vertical, in degrees"
    )
    state.speed = widgets.slider(
        "camera_speed",
        "Flying speed",
        state.speed,
        limits("speed"),
        "%.2f x",
        log=True,
        tip="The wheel changes it in flight",
    )
    state.sensitivity = widgets.slider(
        "camera_sensitivity", "Mouse", state.sensitivity, limits("sensitivity"), "%.2f x", log=True, tip="Sensitivity"
    )
    if widgets.button("camera_home", "Home view", -1.0):
        context.actions["home"]()
    _pose(context)
    widgets.heading("Bookmarks")
    _bookmarks(context)
    if imgui.get_content_region_avail().x > 0:
        widgets.note("Click: go there, or store here when empty. Right-click: forget.")


def _pose(context: Context) -> None:
    from imgui_bundle import imgui

    fields = context.fields
    widgets.heading("Pose, camera to world")
    axes = fields.get("axes", CONVENTIONS[0])
    fields["axes"] = widgets.choice(
        "camera_axes", "Axes", axes, CONVENTIONS, "OpenCV: y down, z forward. OpenGL: y up, z back."
    )
    pose = in_convention(context.state.camera.c2w, fields["axes"])
    imgui.push_font(context.fonts.mono, theme.FONT_SIZE)
    imgui.push_style_color(imgui.Col_.child_bg, theme.rgba(theme.FIELD, 0.55))
    lines = ["".join(f"{x + 0.0:10.4f}" if abs(x) < 1000 else f"{x:10.5g}" for x in row) for row in pose]
    height = imgui.get_text_line_height_with_spacing() * len(lines) + 2 * imgui.get_style().window_padding.y
    if imgui.begin_child("##pose", (0, height), imgui.ChildFlags_.always_use_window_padding.value):
        for line in lines:
            imgui.text(line)
    imgui.end_child()
    imgui.pop_style_color()
    imgui.pop_font()
    half = (imgui.get_content_region_avail().x - imgui.get_style().item_spacing.x) / 2
    if widgets.button("camera_copy", "Copy", half, "As JSON; in OpenCV axes, what `infnerf render --camera` reads"):
        context.actions["copy_pose"]()
    imgui.same_line()
    if widgets.button("camera_paste", "Paste", half, "JSON with c2w, or 12 or 16 numbers in the axes above"):
        context.actions["paste_pose"]()


def _bookmarks(context: Context) -> None:
    from imgui_bundle import imgui

    stored = context.bookmarks
    spacing = imgui.get_style().item_spacing.x / 2
    width = (imgui.get_content_region_avail().x - spacing * (N_BOOKMARKS - 1)) / N_BOOKMARKS
    for slot in range(1, N_BOOKMARKS + 1):
        filled = slot in stored
        if slot > 1:
            imgui.same_line(0, spacing)
        imgui.push_style_color(imgui.Col_.button, theme.rgba(theme.ACCENT_DIM if filled else theme.FIELD))
        imgui.push_style_color(imgui.Col_.text, theme.rgba(theme.TEXT if filled else theme.MUTED))
        if widgets.button(f"bookmark_{slot}", str(slot), width):
            context.actions[f"recall_{slot}" if filled else f"store_{slot}"]()
        if imgui.is_item_clicked(imgui.MouseButton_.right):
            context.actions["forget"](slot)
        imgui.pop_style_color(2)
