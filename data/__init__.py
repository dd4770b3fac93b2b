"""Scenes on disk: dataset formats, image pyramids, points, the synthetic city."""
