"""Which images of a source make up a split."""

from __future__ import annotations

from .ply import DatasetError
from .source import Frame, Source

SPLITS = ("train", "test", "val", "all")
EVERY = 8  # one image of so many is held out where the data have no test split
_STANDS_FOR = {"test": "val", "val": "test"}


def choose(source: Source, split: str) -> tuple[list[Frame], list[str]]:
    """The frames of a split, in the source's order, and sentences on what was not as asked.

    Where the data have no split but train, every eighth image by name is test and val, and train is the rest; fewer
    than eight images all train. Raises `DatasetError` for a split that cannot be had.
    """
    if split not in SPLITS:
        raise DatasetError(f"{source.path}: expected split 'train', 'test', 'val' or 'all', found '{split}'")
    frames = [frame for frame in source.frames if frame.image is not None]
    if split == "all":
        return frames, []
    named = {frame.split for frame in source.frames}
    told = named - {None}
    if not told - {"train"} and not (told and None in named):
        return _held_out(source, frames, split)
    notes = []
    rest = "train" if "train" not in told else "test" if not told & {"test", "val"} else None  # the images in no list
    if None in named:
        n = sum(frame.split is None for frame in frames)
        notes.append(f"{source.cameras_file}: {n} images are in no list, they count as {rest or 'none'}")
    assigned = [(frame.split or rest, frame) for frame in frames]
    chosen = [frame for of, frame in assigned if of == split]
    other = _STANDS_FOR.get(split)
    if split not in told | {rest} and other is not None:
        notes.append(f"{source.path}: there is no {split} split, {other} is used")
        chosen = [frame for of, frame in assigned if of == other]
    elif split == "train" and not {of for of in told | {rest} if of == "train"}:
        raise DatasetError(f"{source.path}: expected a 'train' split, found only {', '.join(sorted(map(str, told)))}")
    return chosen, notes


def _held_out(source: Source, frames: list[Frame], split: str) -> tuple[list[Frame], list[str]]:
    fewest = 2 if source.held_out_by_format else EVERY
    if len(frames) < fewest:
        if split == "train":
            return frames, []
        missing = source.path / "test" / "cameras.json"
        what = f"{missing}: expected this file" if source.scene_file else f"{source.path}: expected a '{split}' split"
        count = f"{len(frames)} image{'s' * (len(frames) != 1)}"
        raise DatasetError(f"{what}, found none, and {count} are too few to hold every eighth out")
    order = sorted(range(len(frames)), key=lambda i: frames[i].name)
    test = set(order[::EVERY])
    note = f"{source.path}: no test split: every eighth of {len(frames)} images by name is held out for it"
    chosen = [frame for i, frame in enumerate(frames) if (i in test) == (split != "train")]
    return chosen, [] if source.held_out_by_format else [note]
