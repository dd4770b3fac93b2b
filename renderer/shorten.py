"""Lines of text in a given room; who draws them says what fits."""

from __future__ import annotations

from collections.abc import Callable


def shortened(text: str, fits: Callable[[str], bool]) -> str:
    """The line, or as much of both its ends as fits, its middle left out; at least its first letter.

    >>> shortened("abcdefgh", lambda line: len(line) <= 6), shortened("short", lambda line: len(line) <= 6)
    ('ab...h', 'short')
    """
    if fits(text):
        return text
    keep = len(text) - 1
    while keep > 1 and not fits(_cut(text, keep)):
        keep -= 1
    return _cut(text, keep)


def _cut(text: str, keep: int) -> str:
    return f"{text[: (keep + 1) // 2]}...{text[len(text) - keep // 2 :]}"
