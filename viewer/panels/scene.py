"""The scene panel: what is open, how big it is, how it is divided into levels."""

from __future__ import annotations

from . import Context, widgets

TITLE = "Scene"


def draw(context: Context) -> None:
    """File, octree, parameters, memory and the table of levels."""
    from imgui_bundle import imgui

    _open_row(context)
    _shown_row(context)
    scene = context.scene
    if context.following:
        widgets.note(context.following)
    if scene is None:
        widgets.note("Nothing is open. Drop a checkpoint (.pth) onto the window, or give its path above.")
        return
    widgets.heading("File")
    widgets.fact("Name", scene.path.name, str(scene.path))
    widgets.fact("On disk", widgets.size(scene.file_bytes))
    widgets.fact("Model", scene.backend)
    if scene.step is not None:
        widgets.fact("Trained", f"{scene.step:,} steps")
    widgets.fact("Parameters", widgets.count(scene.n_parameters))
    widgets.fact("Memory", widgets.size(scene.memory_bytes), "Node data: hash tables, MLPs and occupancy")
    widgets.heading("World")
    low, high = scene.aabb
    widgets.fact("Extent", " x ".join(f"{edge:.4g}" for edge in high - low) + f" {scene.unit}")
    widgets.fact("Up", " ".join(f"{x:.3g}" for x in scene.up))
    widgets.fact("Photographs", str(scene.n_cameras))
    widgets.heading("Octree")
    widgets.fact("Nodes", f"{sum(scene.level_counts):,}")
    widgets.fact("Levels", f"{len(scene.level_counts)}, 0 to {len(scene.level_counts) - 1}")
    flags = (
        imgui.TableFlags_.row_bg.value
        | imgui.TableFlags_.borders_outer_h.value
        | imgui.TableFlags_.sizing_stretch_same.value
    )
    if imgui.begin_table("##levels", 4, flags):
        for title in ("Level", "Nodes", f"Edge ({scene.unit})", f"GSD ({scene.unit})"):
            imgui.table_setup_column(title)
        imgui.table_headers_row()
        for level, nodes in enumerate(scene.level_counts):
            edge = scene.level_edges[level]
            for cell in (str(level), f"{nodes:,}", f"{edge:.4g}", f"{scene.level_gsd[level]:.3g}"):
                imgui.table_next_column()
                imgui.text(cell)
        imgui.end_table()


def _open_row(context: Context) -> None:
    from imgui_bundle import imgui

    fields, padding = context.fields, imgui.get_style().frame_padding.x
    room = imgui.get_content_region_avail().x - sum(imgui.calc_text_size(text).x for text in ("Open", "Add"))
    entered, fields["path"] = widgets.text_field(
        "scene_path", fields.get("path", ""), "Path of a checkpoint", room - 6 * padding
    )
    imgui.same_line(0, padding)
    clicked = widgets.button("scene_open", "Open", 0.0, "Opens the checkpoint named on the left in place of this one")
    imgui.same_line(0, padding)
    added = widgets.button("scene_add", "Add", -1.0, "Opens it beside those that are open")
    if fields["path"].strip() and (entered or clicked or added):
        context.actions["add" if added else "open"](fields["path"].strip())
    if context.loading:
        widgets.note(f"Loading {context.loading} ...")


def _shown_row(context: Context) -> None:
    """Which of several open scenes leads."""
    if not context.scenes:
        return
    names = tuple(f"{number + 1}: {scene.path.name}" for number, scene in enumerate(context.scenes))
    leads = next((i for i, scene in enumerate(context.scenes) if scene is context.scene), 0)
    chosen = widgets.choice("scene_shown", "Shown", names[leads], names, "Keys 1 to 9")
    if chosen != names[leads]:
        context.actions["show"](names.index(chosen))
    if widgets.button("scene_close", "Close this scene", -1.0, "The others stay", enabled=len(names) > 1):
        context.actions["close"](leads)
