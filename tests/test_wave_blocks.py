"""The wavefront's lists on the CPU build against numpy: running sums, compaction, buckets and tiles."""

from __future__ import annotations

import numpy as np
import pytest
from fake_cupy import launch_on_cpu

from infnerf.renderer.gpu_buffers import CHUNK, MAX_ROUNDS, N_COUNTERS, ROUNDS_USED, TILE_SAMPLES
from infnerf.renderer.gpu_loader import SCAN_THREADS, packed_arguments
from infnerf.renderer.kernels import BuffersStruct, SceneStruct, WaveStruct

POISON = -77
BLOCKS = 3


class Lists:
    """Arrays of a `Wave` in host memory, and its kernels on them."""

    def __init__(self, rays: int, samples: int, n_nodes: int, max_steps: int = 1) -> None:
        chunks = -(-rays // CHUNK) + 2
        sizes = {
            "counters": N_COUNTERS, "living": 2 * rays, "alive": rays, "chunk_counts": chunks, "chunk_starts": chunks,
            "node": samples, "rank": samples, "order": samples, "node_counts": n_nodes + 1, "starts": n_nodes + 1,
            "tile_starts": n_nodes + 1, "tiles": 2 * (samples // TILE_SAMPLES + n_nodes),
        }  # fmt: skip
        self.arrays = {name: np.full(max(size, 1), POISON, np.int32) for name, size in sizes.items()}
        self.node_samples = np.zeros(n_nodes, np.int32)
        self.wave = WaveStruct(rays=rays, samples=samples, max_steps=max_steps)
        for name, array in self.arrays.items():
            setattr(self.wave, name, array.ctypes.data)
        self.wave.out = BuffersStruct(node_samples=self.node_samples.ctypes.data)
        self.scene = SceneStruct(n_nodes=n_nodes)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def launch(self, name: str, number: int, blocks: int = BLOCKS, backwards: bool = False) -> None:
        launch_on_cpu(name, (blocks, 1), packed_arguments(name, (self.scene, self.wave, number)), backwards)


@pytest.mark.parametrize("n", [0, 1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5, 20000])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_compaction_keeps_the_living_in_their_order(n: int, share: float) -> None:
    rng = np.random.default_rng(n)
    lists = Lists(rays=max(n, 1), samples=1, n_nodes=1)
    entries, flags = rng.permutation(n).astype(np.int32), rng.random(n) < share
    for number in (4, 5):  # from the first half of `living` to the second, and back
        source, target = np.split(lists["living"], 2)[:: 1 if number % 2 == 0 else -1]
        source[:n], target[:] = entries, POISON
        lists["alive"][:n] = flags
        lists["counters"][number], lists["counters"][ROUNDS_USED] = n, 2
        lists["chunk_counts"][:] = 0
        np.add.at(lists["chunk_counts"], np.flatnonzero(flags) // CHUNK, 1)
        lists.launch("wave_scan_rays", number, blocks=1)
        lists.launch("wave_compact", number, backwards=number == 5)
        kept = entries[flags]
        assert lists["counters"][number + 1] == len(kept)
        np.testing.assert_array_equal(target[: len(kept)], kept)
        assert (target[len(kept) :] == POISON).all()
        assert not lists["chunk_counts"].any()
        assert lists["counters"][ROUNDS_USED] == (number if n else 2)


def nodes_of(case: str, n: int, n_nodes: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    if case == "one node":
        return np.full(n, n_nodes - 1)
    if case == "none":
        return np.full(n, -1)
    return np.where(rng.random(n) < 0.2, -1, rng.integers(0, n_nodes, n) ** 2 // n_nodes)


@pytest.mark.parametrize("case", ["random", "one node", "none"])
@pytest.mark.parametrize(
    ("n", "n_nodes"), [(1, 1), (31, 3), (32, 3), (33, 3), (5000, 700), (3000, SCAN_THREADS * 3 + 1)]
)
def test_buckets_hold_every_sample_once_and_tiles_cover_them(case: str, n: int, n_nodes: int) -> None:
    lists = Lists(rays=n, samples=n, n_nodes=n_nodes)
    node = nodes_of(case, n, n_nodes)
    lists["node"][:] = node
    lists["counters"][1] = n
    lists["node_counts"][:] = 0
    for slot in np.random.default_rng(1).permutation(n):  # as threads come
        if node[slot] >= 0:
            lists["rank"][slot] = lists["node_counts"][node[slot]]
            lists["node_counts"][node[slot]] += 1
    lists.launch("wave_scan_nodes", 1, blocks=1)
    lists.launch("wave_scatter", 1)
    taken = node[node >= 0]
    counts = np.bincount(taken, minlength=n_nodes)
    np.testing.assert_array_equal(lists["starts"], np.concatenate([[0], np.cumsum(counts)]))
    order = lists["order"][: len(taken)]
    np.testing.assert_array_equal(node[order], np.sort(taken))
    np.testing.assert_array_equal(np.sort(order), np.flatnonzero(node >= 0))
    np.testing.assert_array_equal(lists.node_samples, counts)
    assert not lists["node_counts"].any()
    n_tiles = int(lists["tile_starts"][n_nodes])
    covered = []
    for which, first in lists["tiles"].reshape(-1, 2)[:n_tiles]:
        end = min(first + TILE_SAMPLES, lists["starts"][which + 1])
        assert lists["starts"][which] <= first < end
        covered += range(first, end)
    assert covered == list(range(len(taken)))
    assert (lists["tiles"][2 * n_tiles :] == POISON).all()


def test_a_round_without_rays_has_no_tiles() -> None:
    lists = Lists(rays=4, samples=4, n_nodes=2)
    lists["counters"][3] = 0
    for name in ("wave_scan_nodes", "wave_scatter", "wave_scan_rays", "wave_compact"):
        lists.launch(name, 3, blocks=1)
    assert lists["tile_starts"][2] == 0
    assert lists["counters"][4] == 0
    assert (lists["order"] == POISON).all()
    assert MAX_ROUNDS + 1 < ROUNDS_USED
