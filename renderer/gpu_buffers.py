"""What the wavefront keeps on the device: a model, an image, and the rays and samples in flight.

Rays and samples shrink where memory is short: then an image takes more slices and more rounds, and comes out the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..models.infnerf import InfNeRF
from ..models.pynerf import PyNeRF
from .device_picture import COMPONENTS
from .frame import CHANNELS
from .gpu_driver import Arena, GpuDriver
from .gpu_errors import GpuMemoryError
from .gpu_loader import KERNELS, DevicePointer, shader_for
from .kernels import BuffersStruct, FieldSamplesStruct, SceneArrays, SceneStruct, WaveStruct
from .tensor_cores import kind_options, shade_options, suits_tensor_cores

CHUNK, TILE_SAMPLES = 2048, 32  # as in cuda/block.cuh
MAX_ROUNDS, N_SUMS = 128, 10  # as in cuda/wave.cuh
ROUNDS_USED, RAYS_LEFT, N_COUNTERS = MAX_ROUNDS + 2, MAX_ROUNDS + 3, MAX_ROUNDS + 4
RAY_TILE = (8, 4)  # px
MAX_STEPS = 16  # samples of a ray a round: what lies behind an early stop is shaded in vain, half of this on average

MAX_RAYS = 1 << 22  # 72 bytes each
MIN_RAYS = 1 << 12
SAMPLES_PER_RAY = 4  # 56 bytes each

IMAGE_WORDS = {name: COMPONENTS.get(name, 1) for name in CHANNELS}  # of a pixel


@dataclass(frozen=True)
class Plan:
    """How many rays and samples there is room for at once; never fewer samples than rays."""

    rays: int
    samples: int

    @staticmethod
    def for_pixels(pixels: int) -> Plan:
        """The largest that helps an image of so many pixels.

        >>> Plan.for_pixels(1920 * 1080)
        Plan(rays=2097152, samples=8388608)
        """
        rays = MIN_RAYS
        while rays < min(pixels, MAX_RAYS):
            rays *= 2
        return Plan(rays, SAMPLES_PER_RAY * rays)

    def smaller(self) -> Plan | None:
        """Fewer samples in flight, then fewer rays; None at the floor."""
        if self.samples > self.rays:
            return Plan(self.rays, self.samples // 2)
        return Plan(self.rays // 2, self.samples // 2) if self.rays > MIN_RAYS else None

    def words(self, n_nodes: int, levels: bool = False) -> list[tuple[str, int]]:
        """Name -> 4-byte words of every array of `Wave`, as its header gives them; `levels`: one a sample."""
        rays, samples, chunks = self.rays, self.samples, self.rays // CHUNK + 2
        per_ray = {"directions": 3, "step": 1, "sums": N_SUMS, "heaviest_node": 1, "living": 2, "alive": 1}
        per_sample = {
            "t": 1, "dt": 1, "local": 3, "ray_indices": 1, "node": 1, "wanted": 1, "rank": 1, "order": 1, "sigma": 1,
            "rgb": 3, **({"level": 1} if levels else {}),
        }  # fmt: skip
        return [
            ("slice", 64),
            ("counters", N_COUNTERS),
            *[(name, words * rays) for name, words in per_ray.items()],
            ("chunk_counts", chunks),
            ("chunk_starts", chunks),
            *[(name, words * samples) for name, words in per_sample.items()],
            *[(name, n_nodes + 1) for name in ("node_counts", "starts", "tile_starts")],
            ("tiles", 2 * (samples // TILE_SAMPLES + n_nodes)),
        ]


class DeviceScene:
    """A model on the device: `struct` for the kernels, the memory that it points into, what shades it and how kernels
    are compiled for it."""

    def __init__(self, driver: GpuDriver, model: InfNeRF | PyNeRF) -> None:
        here = model.tables.device
        arrays = SceneArrays(model, device=here if here.index == driver.ordinal else None)
        self.shader = shader_for(driver.architecture, suits_tensor_cores(model))
        self._kind = kind_options(model)
        self._layers = shade_options(model.config) if isinstance(model, InfNeRF) else ()
        self.struct = SceneStruct.from_buffer_copy(arrays.struct)
        self._owners = []
        try:
            for name, array in arrays.arrays.items():
                address, owner = driver.on_device(array)
                setattr(self.struct, name, address)
                self._owners.append(owner)
        except GpuMemoryError as error:
            n_bytes = arrays.tables.nbytes + arrays.mlp.nbytes
            raise GpuMemoryError(
                f"the model's {n_bytes >> 20} MiB do not fit on the GPU, where {driver.free_bytes() >> 20} MiB are free"
            ) from error

    def options(self, kernel: str) -> tuple[str, ...]:
        """How a kernel is compiled for this model."""
        spec = KERNELS[kernel]
        return self._layers if spec.of_model else self._kind if spec.of_kind else ()

    def free(self) -> None:
        self._owners.clear()


class DeviceBuffers:
    """An image's channels, and the wavefront's arrays. Raises `GpuMemoryError` if even the smallest do not fit."""

    def __init__(self, driver: GpuDriver, scene: DeviceScene, pixels: int, at_most: Plan | None = None) -> None:
        self.pixels = pixels
        n_nodes = scene.struct.n_nodes
        try:
            image = [(name, words * pixels) for name, words in IMAGE_WORDS.items()]
            self.image = Arena(driver, [*image, ("node_samples", n_nodes)])
            wanted = Plan.for_pixels(pixels)
            if at_most is not None and at_most.samples < wanted.samples:
                wanted = at_most
            self.plan, self.wave = self._largest(driver, wanted, n_nodes, scene.struct.heads > 0)
        except GpuMemoryError as error:
            raise GpuMemoryError(
                f"the GPU has too little memory for an image of {pixels} pixels ({driver.free_bytes() >> 20} MiB are "
                "free): render a smaller one, or use --executor cpu"
            ) from error
        self.out = BuffersStruct(**self.image.address)
        self.struct = WaveStruct(rays=self.plan.rays, samples=self.plan.samples, max_steps=MAX_STEPS, out=self.out)
        for name, address in self.wave.address.items():
            setattr(self.struct, name, address)
        at = self.wave.address
        names = ("local", "ray_indices", "directions", "order", "starts", "sigma", "rgb", "level")
        self.samples = FieldSamplesStruct(**{name: at[name] for name in names if name in at})
        self.tiles, self.n_tiles = at["tiles"], DevicePointer(at["tile_starts"] + 4 * n_nodes)

    @staticmethod
    def _largest(driver: GpuDriver, plan: Plan, n_nodes: int, levels: bool) -> tuple[Plan, Arena]:
        while True:
            try:
                return plan, Arena(driver, plan.words(n_nodes, levels))
            except GpuMemoryError:
                smaller = plan.smaller()
                if smaller is None:
                    raise
                plan = smaller

    def free(self) -> None:
        self.image.free()
        self.wave.free()


def slices(region: tuple[int, int, int, int], rays: int) -> list[tuple[int, int, int, int]]:
    """A region cut into parts of at most `rays` rays, tiles that hang over the edge counted in; whole rows of tiles
    where they fit.

    >>> slices((0, 0, 100, 10), 4096), slices((0, 0, 100, 10), 500)
    ([(0, 0, 100, 10)], [(0, 0, 100, 4), (0, 4, 100, 8), (0, 8, 100, 10)])
    """
    x0, y0, x1, y1 = region
    if x0 >= x1 or y0 >= y1:
        return []
    tile_w, tile_h = RAY_TILE
    columns = min(x1 - x0, rays // (tile_w * tile_h) * tile_w)
    across = -(-columns // tile_w)
    rows = max(1, rays // (across * tile_w * tile_h)) * tile_h
    return [
        (x, y, min(x + columns, x1), min(y + rows, y1)) for y in range(y0, y1, rows) for x in range(x0, x1, columns)
    ]
