"""Selection against a stable sort, on both kinds of arrays that it knows."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_sparse import Curve, Engine, Recipe, sparsifiable
from lightning_sparse.engine import selection
from lightning_sparse.engine.selection import count_true, counts_true, extremes, highest, lowest
from lightning_sparse.errors import SparsityError


@pytest.fixture(params=["numpy", "torch"])
def arrays(request, monkeypatch):
    """On a CPU the ranking is numpy's; elsewhere torch's, which runs here too."""
    if request.param == "torch":
        monkeypatch.setattr(selection, "_plain", lambda tensor: tensor.reshape(-1))


def by_sorting(scores, count, among, from_above):
    """The same, by a stable sort of everything."""
    flat = np.concatenate([score.double().numpy().ravel() for score in scores])
    candidates = np.flatnonzero(np.concatenate([mask.numpy().ravel() for mask in among]))
    order = np.argsort(-flat[candidates] if from_above else flat[candidates], kind="stable")
    marks = np.zeros(len(flat), dtype=bool)
    marks[candidates[order[: max(count, 0)]]] = True
    return np.split(marks, np.cumsum([score.numel() for score in scores])[:-1])


def some_scores(kind, size, generator):
    if kind == "ties":
        return torch.randint(-3, 4, (size,), generator=generator).float()
    scores = torch.randn(size, generator=generator)
    if kind == "infinities":
        scores[torch.rand(size, generator=generator) < 0.2] = torch.inf
        scores[torch.rand(size, generator=generator) < 0.2] = -torch.inf
    if kind == "zeros":  # as of magnitudes where most are dead
        scores[torch.rand(size, generator=generator) < 0.8] = 0.0
    if kind == "sorted":
        scores = scores.sort().values
    return scores


@pytest.fixture(params=[1000, 300, 1])
def joined(request, monkeypatch):
    """How many entries are joined on other devices: all of the tests' tensors, some, none."""
    monkeypatch.setattr(selection, "_plain", lambda tensor: tensor.reshape(-1))
    monkeypatch.setattr(selection, "_JOINED", request.param)


@pytest.mark.usefixtures("arrays")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["continuous", "ties", "infinities", "zeros", "sorted"])
@pytest.mark.parametrize("seed", range(2))
def test_equals_a_stable_sort(kind, dtype, seed, monkeypatch):
    monkeypatch.setattr(selection, "_PIECE", 100)
    generator = torch.Generator().manual_seed(seed)
    for living in (1.0, 0.5, 0.1):
        scores = [some_scores(kind, size, generator).to(dtype) for size in (700, 1, 260, 40)]
        among = [torch.rand(score.shape, generator=generator) < living for score in scores]
        total = sum(int(mask.sum()) for mask in among)
        for count in (-1, 0, 1, 2, total // 10, total // 2, total - 1, total, total + 1):
            for from_above in (False, True):
                marks = extremes(scores, count, among, from_above=from_above)
                expected = by_sorting(scores, count, among, from_above)
                assert all(np.array_equal(a.numpy(), b) for a, b in zip(marks, expected, strict=True))
                one = (highest if from_above else lowest)(scores[0], count, among[0])
                assert np.array_equal(one.numpy(), by_sorting(scores[:1], count, among[:1], from_above)[0])


@pytest.mark.usefixtures("arrays")
@pytest.mark.parametrize("seen", [-9.0, 0.0, 9.0])
@pytest.mark.parametrize("count", [1, 100, 5_000, 9_900, 9_999])
def test_an_unlucky_sample_costs_a_second_look_and_not_the_answer(seen, count):
    scores = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    scores[::23] = seen  # exactly what the sample looks at
    everything = torch.ones(10_000, dtype=torch.bool)
    assert np.array_equal(lowest(scores, count).numpy(), by_sorting([scores], count, [everything], False)[0])
    assert np.array_equal(highest(scores, count).numpy(), by_sorting([scores], count, [everything], True)[0])


def test_half_a_million_scores_equal_a_stable_sort():
    scores = torch.randn(1000, 500, generator=torch.Generator().manual_seed(0)).abs()
    among = scores > 0.3
    for count in (10, 300_000, int(among.sum()) - 3):
        expected = by_sorting([scores], count, [among], False)[0]
        assert np.array_equal(lowest(scores, count, among).numpy().ravel(), expected)


def test_double_precision_decides_where_it_is_given():
    scores = [torch.tensor([1.0, 1.0]), torch.tensor([1.0 - 1e-12, 2.0], dtype=torch.float64)]
    marks = extremes(scores, 1, [None, None], from_above=False)
    assert [mark.tolist() for mark in marks] == [[False, False], [True, False]]


def test_positions_count_in_row_major_order_whatever_the_memory_format():
    scores = torch.randint(0, 3, (4, 3, 5, 5), generator=torch.Generator().manual_seed(0)).float()
    last = scores.to(memory_format=torch.channels_last)
    assert torch.equal(lowest(last, 70), lowest(scores, 70))


def test_scores_and_candidates_are_left_as_they_were():
    scores, among = torch.rand(100), torch.rand(100) < 0.8
    kept = scores.clone(), among.clone()
    for choose in (lowest, highest):
        choose(scores, 30, among).logical_not_()
        choose(scores, 200, among).logical_not_()
    assert torch.equal(scores, kept[0])
    assert torch.equal(among, kept[1])


@pytest.mark.usefixtures("arrays")
@pytest.mark.parametrize("choose", [lowest, highest])
def test_nan_is_refused_even_where_it_is_no_candidate(choose):
    scores = torch.tensor([1.0, torch.nan, 2.0])
    with pytest.raises(SparsityError, match="NaN"):
        choose(scores, 1)
    with pytest.raises(SparsityError, match="NaN"):
        choose(scores, 1, among=torch.tensor([True, False, True]))


@pytest.mark.usefixtures("arrays")
def test_counting():
    mask = torch.tensor([[True, False], [True, True]])
    assert count_true(mask) == 3
    assert count_true(~mask & mask) == 0


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize("kind", ["continuous", "ties", "zeros"])
def test_tensors_that_are_joined_are_ranked_as_one_by_one(kind):
    generator = torch.Generator().manual_seed(0)
    scores = [some_scores(kind, size, generator) for size in (200, 90, 1, 260, 40)]
    among = [None, *(torch.rand(score.shape, generator=generator) < 0.5 for score in scores[1:])]
    every = [torch.ones(200, dtype=torch.bool), *among[1:]]
    for count in (1, 50, 150, 600):
        marks = extremes(scores, count, among, from_above=False)
        for mark, expected in zip(marks, by_sorting(scores, count, every, from_above=False), strict=True):
            assert np.array_equal(mark.numpy(), expected)


class Waits(TorchDispatchMode):
    """Counts the operations that a GPU would have to answer before the next line of Python."""

    def __init__(self):
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.waits += operation in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("layers", [2, 40])
def test_one_ranking_waits_for_a_device_as_often_whatever_the_number_of_layers(layers, monkeypatch):
    monkeypatch.setattr(selection, "_plain", lambda tensor: tensor.reshape(-1))
    net = torch.nn.Sequential(*(torch.nn.Linear(30, 30) for _ in range(layers)))
    engine = Engine(sparsifiable(net), Recipe(Curve(0.9)))
    with Waits() as counted:
        engine.update()
    assert counted.waits == 3  # is a score NaN, how many are below the bracket, and which are inside


@pytest.mark.usefixtures("arrays")
def test_several_are_counted_at_once_and_none_as_well():
    masks = {"a": torch.tensor([[True, False], [True, True]]), "b": torch.zeros(3, dtype=torch.bool)}
    assert counts_true(masks) == {"a": 3, "b": 0}
    assert counts_true({}) == {}
