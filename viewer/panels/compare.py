"""The compare panel: which of two sides shows what, how, and the data set whose photographs may be one of them."""

from __future__ import annotations

from ...renderer.comparison import COMPARISONS
from ..side_labels import decibels
from ..sides import LEFT, NAMES, RIGHT, choose
from ..state import COMPARE, PHOTO, limits
from . import Context, widgets

TITLE = "Compare"


def draw(context: Context) -> None:
    """Mode, sides, what belongs to the mode, and photographs."""
    state = context.state
    widgets.heading("Two sides, one camera")
    state.compare = widgets.choice("compare_mode", "Compare", state.compare, COMPARE, "C takes the next")
    _side(context, LEFT)
    _side(context, RIGHT)
    if widgets.button("compare_swap", "Swap sides", -1.0, "Left and right exchanged (X)"):
        context.actions["swap"]()
    state.divider = (
        widgets.slider(
            "compare_divider", "Divider", 100 * state.divider, (0.0, 100.0), "%.0f %%",
            tip="Of the wipe; the mouse drags it in the picture",
        )
        / 100
    )  # fmt: skip
    state.flicker_hz = widgets.slider(
        "compare_flicker", "Flicker", state.flicker_hz, limits("flicker_hz"), "%.1f changes/s", log=True
    )
    state.difference_limit = widgets.slider(
        "compare_limit", "Full colour at", state.difference_limit, limits("difference_limit"), "%.0f of 255", log=True,
        tip="Display value at the end of the colours of difference and error",
    )  # fmt: skip
    if state.compare in COMPARISONS and context.score is not None:
        widgets.fact("PSNR", decibels(context.score), "Of the two pictures on the screen, display values")
    elif len(context.scenes) < 2 and context.data is None:
        widgets.note("Add a second checkpoint in the Scene panel, or open a data set below.")
    widgets.heading("Photographs")
    _photographs(context)


def _side(context: Context, side: int) -> None:
    """What is on one side: a scene or the photograph."""
    state, name = context.state, NAMES[side]
    options = {f"{number + 1}: {scene.path.name}": number for number, scene in enumerate(context.scenes)}
    if context.data is not None:
        options["photograph"] = PHOTO
    present = getattr(state, name)
    shown = next((text for text, what in options.items() if what == present), "")
    chosen = widgets.choice(f"compare_{name}", name.capitalize(), shown, tuple(options))
    if chosen != shown:
        choose(state, side, options[chosen])


def _photographs(context: Context) -> None:
    """The data set, its images, and the way to their cameras."""
    from imgui_bundle import imgui

    fields, data, state = context.fields, context.data, context.state
    padding = imgui.get_style().frame_padding.x
    room = imgui.get_content_region_avail().x - imgui.calc_text_size("Open").x - 3 * padding
    entered, fields["data"] = widgets.text_field("compare_data", fields.get("data", ""), "Folder of a data set", room)
    imgui.same_line(0, padding)
    clicked = widgets.button("compare_open", "Open", -1.0, "Lists the photographs of the data set named on the left")
    if (entered or clicked) and fields["data"].strip():
        context.actions["open_data"](fields["data"].strip())
    if context.data_loading:
        widgets.note(f"Loading {context.data_loading} ...")
    images = () if data is None else tuple(f"{number + 1}: {name}" for number, name in enumerate(data.names))
    shown = images[state.photo] if state.photo < len(images) else ""
    chosen = widgets.choice("compare_image", "Image", shown, images, "Its camera becomes the view's")
    if chosen != shown:
        context.actions["snap"](images.index(chosen))
    half = (imgui.get_content_region_avail().x - padding) / 2
    for widget, label, action, tip in (
        ("compare_previous", "Previous", "previous_photo", "Its camera and photograph (B)"),
        ("compare_next", "Next", "next_photo", "Its camera and photograph (N)"),
    ):
        if widgets.button(widget, label, half, tip, enabled=data is not None):
            context.actions[action]()
        if widget == "compare_previous":
            imgui.same_line(0, padding)
    if widgets.button("compare_snap", "To its camera", -1.0, "Where the photograph can be seen (V)", data is not None):
        context.actions["to_photo"]()
    if data is not None and PHOTO in (state.left, state.right) and not context.at_photograph:
        widgets.note("The photograph is seen from its own camera only.")
