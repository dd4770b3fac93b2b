"""What a training run is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..models.config import InfNeRFConfig
from .losses import LossConfig
from .optimizer import AdamConfig

SCALES = (1, 2, 4, 8)


@dataclass
class TrainerConfig:
    """The knobs of a run; `infnerf train` has most of them as options."""

    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    downscale: int = 1
    image_bytes: int | None = None  # of memory for training images; None: all of them stay
    max_bytes: int = 16_000_000  # of the checkpoint; the octree keeps the nodes that most points ask for
    min_points: int = 12  # a child exists where more points than these ask for it
    samples_per_step: int = 1 << 18  # rays a step follow from the samples they took last
    max_depth: int = 16  # levels below the root
    octree_growth_schedule: tuple[float, ...] | None = None  # fractions of the run; None: growth only without points
    octree_prune_schedule: tuple[float, ...] | None = None  # fractions of the run up to 0.8; None: 0.3 and 0.6
    adam: AdamConfig = field(default_factory=AdamConfig)
    long_steps_share: float = 0.6  # of the run, from its start: rays in steps twice as long, so twice as many of them
    tied_share: float = 0.5  # of the run, from its start: all nodes' MLPs step alike (training/optimizer.py)
    losses: LossConfig = field(default_factory=LossConfig)
    final_rate: float = 0.03  # of the initial learning rates, reached exponentially
    device: str = "auto"  # cpu, cuda; auto: a GPU if there is one that can be used (training/device.py)

    def fraction(self, steps_done: int, seconds: float) -> float:
        """How much of the run is over: 1 and more where `steps` or `minutes` are reached, 0 where neither is told."""
        by_steps = steps_done / self.steps if self.steps else 0.0
        return max(by_steps, seconds / (60 * self.minutes) if self.minutes else 0.0)


@dataclass(frozen=True)
class StepRecord:
    """One step of a run, as progress bars and logs see it."""

    step: int  # steps done
    fraction: float  # of the whole run
    seconds: float  # of the whole run, earlier parts of a resumed one included
    rays: int  # of this step
    samples: int  # of this step
    nodes: int  # touched by this step
    loss: float
    parts: dict[str, float]  # loss name -> its weighted value
    psnr: float  # dB, running mean over full-size rays of training batches
    rate: float  # factor on the learning rates
    rays_per_second: float  # since this process began
    active: tuple[int, ...] = ()  # of `nodes`, on each level from the root down
    validation: float | None = None  # dB, of the last checkpoint on held-out views; None: not known


def node_budget(config: TrainerConfig, model: InfNeRFConfig, n_cameras: int) -> int:
    """Bytes of a checkpoint of `max_bytes` that its nodes may take, by `model.node_cost`; room for a root at least."""
    overhead = 40_000 + 400 * n_cameras
    return max(model.node_cost(0), config.max_bytes - overhead)
