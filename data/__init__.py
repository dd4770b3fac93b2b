"""Scenes on disk: dataset formats, image pyramids, points, the synthetic city."""

from typing import TYPE_CHECKING

from ..models.lazy import lazy_names

if TYPE_CHECKING:
    from .city import make_city as make_city
    from .dataset import Dataset as Dataset
    from .dataset import DatasetError as DatasetError
    from .dataset import PointCloud as PointCloud
    from .dataset import load_dataset as load_dataset
    from .pyramid import ImagePyramid as ImagePyramid
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        city=("make_city",),
        dataset=("Dataset", "DatasetError", "PointCloud", "load_dataset"),
        pyramid=("ImagePyramid",),
    )
