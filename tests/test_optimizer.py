"""Adam by node: what torch's Adam does where every node is touched, nothing at all where one is not."""

from __future__ import annotations

import pytest
import torch
from random_models import random_model

from infnerf.models.infnerf import InfNeRF
from infnerf.renderer.kernels import load_kernels
from infnerf.training.optimizer import AdamConfig, NodeAdam


def model_with_gradients(seed: int) -> InfNeRF:
    model = random_model(seed, half=False, table_size=128)
    generator = torch.Generator().manual_seed(seed)
    for parameter in (model.tables, model.mlp):
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return model


def give_gradients(model: InfNeRF, step: int, nodes: torch.Tensor) -> None:
    for i, parameter in enumerate((model.tables, model.mlp)):
        generator = torch.Generator().manual_seed(10 * step + i)
        assert parameter.grad is not None
        parameter.grad[nodes] = torch.randn(parameter.shape, generator=generator)[nodes]


def adam(model: InfNeRF, kernels: bool, config: AdamConfig | None = None) -> NodeAdam:
    return NodeAdam(model, config or AdamConfig(), load_kernels() if kernels else None)


@pytest.mark.parametrize("kernels", [False, True])
def test_with_every_node_touched_it_is_torchs_adam(kernels: bool) -> None:
    model, expected = model_with_gradients(1), model_with_gradients(1)
    everything = torch.arange(model.octree.n_nodes)
    mine = adam(model, kernels)
    groups = [{"params": [expected.tables], "lr": 2e-2}, {"params": [expected.mlp], "lr": 2e-3}]
    reference = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15)
    for step in range(5):
        give_gradients(model, step, everything)
        give_gradients(expected, step, everything)
        mine.step(everything)
        reference.step()
    torch.testing.assert_close(model.tables.data, expected.tables.data, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.mlp.data, expected.mlp.data, rtol=1e-4, atol=1e-6)
    assert model.tables.grad is not None
    assert not model.tables.grad.any()


@pytest.mark.parametrize("kernels", [False, True])
def test_nodes_that_are_not_touched_rest_and_later_start_afresh(kernels: bool) -> None:
    model = model_with_gradients(2)
    n, before = model.octree.n_nodes, model.tables.data.clone()
    some, rest = torch.arange(0, n, 3), torch.tensor([i for i in range(n) if i % 3])
    mine = adam(model, kernels)
    for step in range(3):
        give_gradients(model, step, some)
        mine.step(some)
    assert torch.equal(model.tables.data[rest], before[rest])
    assert not mine.means["tables"][rest].any()
    give_gradients(model, 9, rest)
    mine.step(rest)
    moved = (model.tables.data[rest] - before[rest]).abs()
    assert float(moved.max()) == pytest.approx(2e-2, rel=1e-2)  # a first step has the length of the rate


def test_plain_and_simd_kernels_and_torch_agree() -> None:
    models = [model_with_gradients(3) for _ in range(2)]
    nodes = torch.arange(0, models[0].octree.n_nodes, 2)
    config = AdamConfig(level_rate=0.5, clip=1.0)
    for model, kernels in zip(models, (False, True), strict=True):
        mine = adam(model, kernels, config)
        for step in range(3):
            give_gradients(model, step, nodes)
            mine.step(nodes, factor=0.3)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_levels_have_their_own_rates() -> None:
    model = model_with_gradients(4)
    before, everything = model.tables.data.clone(), torch.arange(model.octree.n_nodes)
    adam(model, True, AdamConfig(level_rate=0.5)).step(everything)
    for level in range(model.octree.depth + 1):
        moved = (model.tables.data - before)[model.octree.level == level].abs().max()
        assert float(moved) == pytest.approx(2e-2 * 0.5**level, rel=1e-3)


def test_its_state_comes_back_bit_for_bit_and_is_checked() -> None:
    model = model_with_gradients(5)
    everything = torch.arange(model.octree.n_nodes)
    first = adam(model, True)
    first.step(everything)
    state = {name: value.clone() for name, value in first.state_dict().items()}
    copy = InfNeRF(model.config, model.octree, model.tables.data.clone(), model.mlp.data.clone(), model.occupancy, {})
    second = adam(copy, True)
    second.load_state_dict(state)
    for parameter in (copy.tables, copy.mlp):
        parameter.grad = torch.zeros_like(parameter)
    for one, optimizer in ((model, first), (copy, second)):
        give_gradients(one, 1, everything)
        optimizer.step(everything)
    assert torch.equal(model.tables, copy.tables)
    with pytest.raises(ValueError, match=r"optimizer\.steps_tables: expected .* found NoneType"):
        second.load_state_dict({})


def test_state_follows_nodes_when_the_tree_changes() -> None:
    model = model_with_gradients(6)
    mine = adam(model, True)
    mine.step(torch.arange(model.octree.n_nodes))
    old = mine.means["mlp"].clone()
    mine.follow(model, torch.tensor([2, -1, 0]))
    assert torch.equal(mine.means["mlp"][[0, 2]], old[[2, 0]])
    assert not mine.means["mlp"][1].any()
    assert mine.steps["tables"].tolist() == [1, 0, 1]


@pytest.mark.parametrize("kernels", [False, True])
def test_tied_mlps_step_as_one_decoder(kernels: bool) -> None:
    """By the sum of all gradients, with what they differ by left alone, and then each its own way."""
    model = model_with_gradients(7)
    n, nodes = model.octree.n_nodes, torch.arange(0, model.octree.n_nodes, 2)
    mine, before = adam(model, kernels), model.mlp.data.clone()
    single = torch.nn.Parameter(before[0].clone())
    reference = torch.optim.Adam([single], lr=2e-3, betas=(0.9, 0.99), eps=1e-15)
    for step in range(3):
        give_gradients(model, step, nodes)
        assert model.mlp.grad is not None
        single.grad = model.mlp.grad[nodes].sum(0)
        mine.step(nodes, tied=True)
        reference.step()
    torch.testing.assert_close(model.mlp.data - before, (single.data - before[0]).expand(n, -1), rtol=1e-3, atol=1e-6)
    assert not model.mlp.grad[nodes].any()
    assert mine.steps["mlp"].tolist() == [3] * n
    assert mine.steps["tables"].tolist() == [3 * (i % 2 == 0) for i in range(n)]
    rest = model.mlp.data[1].clone()
    give_gradients(model, 9, nodes)
    mine.step(nodes)
    assert torch.equal(model.mlp.data[1], rest)
