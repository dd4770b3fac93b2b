"""Where the panels are: one column on the right by default, the scene in the rest; a person may dock them elsewhere."""

from __future__ import annotations

from typing import Any

from .inputs import Rect

COLUMN_WIDTH = 396.0  # px at scale 1
LOWER_SHARE = 0.34  # of the column's height, for the statistics
LOWER = {"Statistics", "Camera", "Film"}
DOCK_NAME = "infnerf dock"


class Layout:
    """The dock space. `scene_rect` is what the panels leave free, in ImGui's units."""

    def __init__(self, stored: str) -> None:
        from imgui_bundle import imgui

        self.scene_rect: Rect = (0.0, 0.0, 1.0, 1.0)
        self._build_next = not stored
        if stored:
            imgui.load_ini_settings_from_memory(stored, len(stored.encode()))

    def reset(self) -> None:
        """Takes the default layout again, from the next frame on."""
        self._build_next = True

    def begin(self, titles: tuple[str, ...], show: bool, scale: float) -> None:
        """Submits the dock space; to be called before the panels."""
        from imgui_bundle import imgui

        viewport = imgui.get_main_viewport()
        dock = imgui.get_id(DOCK_NAME)
        size = viewport.work_size
        if self._build_next and show and size.x > 1 and size.y > 1:
            self._build_next = False
            _build(dock, titles, COLUMN_WIDTH * scale / size.x)
        flags = imgui.DockNodeFlags_.passthru_central_node.value
        if not show:
            flags |= imgui.DockNodeFlags_.keep_alive_only.value
        imgui.dock_space_over_viewport(dock, viewport, flags)
        x, y, width, height = viewport.work_pos.x, viewport.work_pos.y, size.x, size.y
        node: Any = imgui.internal.dock_builder_get_central_node(dock) if show else None
        if node is not None:
            x, y, width, height = node.pos.x, node.pos.y, node.size.x, node.size.y
        self.scene_rect = (x, y, max(width, 1.0), max(height, 1.0))

    def scene_box(self, scale: Any) -> tuple[int, int, int, int]:
        """What the panels leave free, px, y down; `scale` [2] is of ImGui's units."""
        x, y, width, height = self.scene_rect
        size = max(round(width * scale[0]), 1), max(round(height * scale[1]), 1)
        return round(x * scale[0]), round(y * scale[1]), *size


def _build(dock: int, titles: tuple[str, ...], share: float) -> None:
    from imgui_bundle import imgui

    internal = imgui.internal
    # int(): Debian 12's Python 3.11.2 cannot OR members of two enums.
    flags = int(imgui.DockNodeFlags_.passthru_central_node) | int(internal.DockNodeFlagsPrivate_.dock_space)
    internal.dock_builder_remove_node(dock)
    internal.dock_builder_add_node(dock, flags)
    internal.dock_builder_set_node_pos(dock, imgui.get_main_viewport().work_pos)
    internal.dock_builder_set_node_size(dock, imgui.get_main_viewport().work_size)
    column = internal.dock_builder_split_node(dock, imgui.Dir.right, min(max(share, 0.1), 0.5)).id_at_dir
    split = internal.dock_builder_split_node(column, imgui.Dir.down, LOWER_SHARE)
    for title in titles:
        internal.dock_builder_dock_window(title, split.id_at_dir if title in LOWER else split.id_at_opposite_dir)
    internal.dock_builder_finish(dock)
