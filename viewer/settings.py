"""Settings and layout kept per user: `settings.json` and `layout.ini` in the user's configuration folder.

`INFNERF_VIEW_CONFIG` names another folder. A file that cannot be read is reported and reset, never fatal.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .state import PERSISTENT, ViewerState, checked

ENVIRONMENT = "INFNERF_VIEW_CONFIG"
SETTINGS, LAYOUT = "settings.json", "layout.ini"


def config_folder() -> Path:
    """The folder of this user's settings; it may not exist yet."""
    if folder := os.environ.get(ENVIRONMENT):
        return Path(folder)
    import platformdirs

    return Path(platformdirs.user_config_dir("infnerf-view", appauthor=False))


def load_settings(state: ViewerState, folder: Path) -> list[str]:
    """Fills `state` from the settings file. Returns sentences about what had to be reset."""
    path = folder / SETTINGS
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("expected a table of settings")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        aside = _set_aside(path)
        return [f"The settings file could not be read and was reset ({_short(error)}){aside}."]
    problems = []
    for name in PERSISTENT:
        if name in values:
            try:
                setattr(state, name, checked(name, values[name]))
            except (ValueError, OverflowError) as error:
                problems.append(f"A setting was reset: {_short(error)}.")
    return problems


def load_layout(folder: Path) -> tuple[str, list[str]]:
    """The stored layout of the panels, empty for the default one, and sentences about what went wrong."""
    path = folder / LAYOUT
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return "", []
    except (OSError, ValueError) as error:
        return "", [f"The panel layout could not be read and was reset ({_short(error)})."]
    if text and ("[Docking][Data]" not in text or "\0" in text or len(text) > 1 << 20):
        return "", [f"The panel layout {LAYOUT} was damaged and was reset."]
    return text, []


def writer(state: ViewerState, folder: Path, layout: str) -> Callable[[], None]:
    """Saves the settings as they are now, in whatever thread it is called."""
    state = replace(state, bookmarks={key: dict(slots) for key, slots in state.bookmarks.items()})
    return lambda: save_settings(state, folder, layout)


def save_settings(state: ViewerState, folder: Path, layout: str | None = None) -> None:
    """Writes settings, and the layout when given. Raises `RuntimeError` with one sentence if it can't."""
    values = {name: getattr(state, name) for name in PERSISTENT}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / SETTINGS, json.dumps(values, indent=1))
        if layout is not None:
            _write(folder / LAYOUT, layout)
    except OSError as error:
        raise RuntimeError(f"Settings could not be saved to {folder}: {error.strerror or error}.") from error


def _write(path: Path, text: str) -> None:
    """Through a temporary file, so that two viewers or a full disk never leave half a file."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _set_aside(path: Path) -> str:
    """Keeps a damaged file under another name, so that nothing a person wrote is lost."""
    try:
        os.replace(path, path.with_suffix(".json.bad"))
    except OSError:
        return ""
    return f"; the old file is kept as {path.name}.bad"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
