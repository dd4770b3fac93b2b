"""How mma.m16n8k16 deals matrices out to lanes, as the PTX manual says, apart from `cuda/warp.cuh`; what asks a GPU."""

from __future__ import annotations

import numpy as np

#: mma and pack of warp.cuh on words as lanes hold them: the interface of `cuda/cpu_warp.cpp`, launched as one warp.
PROBES = """
#include "warp.cuh"
using namespace infnerf;

// a [4, 32], b [2, 32], c [4, 32] +=
extern "C" __global__ void probe_mma(const u32 *a, const u32 *b, float *c) {
    mma_of_words(a, b, c);
}

// packed[i] = (low[i], high[i]) as halves; unpacked [n, 2] = those as floats
extern "C" __global__ void probe_pack(const float *low, const float *high, int n, u32 *packed, float *unpacked) {
    for (int i = threadIdx.x; i < n; i += WARP) {
        packed[i] = pack(low[i], high[i]);
        unpack(packed[i], unpacked[2 * i], unpacked[2 * i + 1]);
    }
}
"""


def random_matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a [16, 16], b [16, 8], c [16, 8] of small whole numbers: c + a @ b is exact in any order."""
    rng = np.random.default_rng(0)
    a, b, c = (rng.integers(-8, 9, shape).astype(np.float32) for shape in ((16, 16), (16, 8), (16, 8)))
    return a, b, c


def hard_numbers() -> np.ndarray:
    """[n] float32 within the range of halves: ties, subnormals, both ends."""
    rng = np.random.default_rng(0)
    halves = np.arange(0, 0x7C00, 37, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (halves[:-1] + halves[1:]) / 2
    random = (rng.normal(size=500) * 2.0 ** rng.uniform(-27, 13, 500)).astype(np.float32)
    ends = np.array([2.0**-24, 2.0**-25, 3 * 2.0**-26, 65519, -0.0], np.float32)
    return np.concatenate([halves, ties, -ties, random, ends])


def fragments(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices -> what each lane holds, by the PTX manual's formulas for m16n8k16 in its own terms: where element i of
    a fragment is, with groupID = lane / 4 and threadID_in_group = lane % 4."""
    lane = np.arange(32)
    group, thread = lane >> 2, lane % 4
    i = np.arange(8)[:, None]
    row_a = np.where((i < 2) | ((i >= 4) & (i < 6)), group, group + 8)
    col_a = np.where(i < 4, thread * 2 + (i & 1), thread * 2 + (i & 1) + 8)
    i = np.arange(4)[:, None]
    row_b = np.where(i < 2, thread * 2 + (i & 1), thread * 2 + (i & 1) + 8)
    row_c = np.where(i < 2, group, group + 8)
    col_c = thread * 2 + (i & 1)
    return words(a[row_a, col_a]), words(b[row_b, np.broadcast_to(group, row_b.shape)]), c[row_c, col_c]


def words(halves: np.ndarray) -> np.ndarray:
    """[2 n, 32] float16 -> [n, 32] uint32, the even ones below."""
    bits = halves.astype(np.float16).view(np.uint16).astype(np.uint32)
    return bits[0::2] | bits[1::2] << 16
