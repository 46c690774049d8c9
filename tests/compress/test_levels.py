"""Even grids and codebooks: against numbers by hand, and against all that could be."""

import itertools

import numpy as np
import pytest
import torch

from lightning_sparse.compress.levels import codebook, even_grid, levels_from


def _all(matrix):
    return torch.ones_like(matrix, dtype=torch.bool)


def test_a_grid_leaves_the_weights_where_they_fit_it():
    weights = torch.tensor([[-0.5, -0.25, 0.0, 0.25]])
    grid = even_grid(weights, _all(weights), 4)
    assert grid.entries.tolist() == weights.tolist()
    assert torch.equal(grid.round(weights), weights)


def test_of_two_symmetric_levels_each_weight_takes_its_sign():
    weights = torch.tensor([[-3.0, -1.0, 1.0, 3.0]])
    grid = even_grid(weights, _all(weights), 2, symmetric=True)
    assert grid.entries[0].tolist() == pytest.approx([-2.0, 2.0], abs=0.1)
    assert grid.numbers().shape == (1, 1)


def test_an_odd_symmetric_grid_has_a_level_at_zero():
    weights = torch.randn(5, 40)
    for row in even_grid(weights, _all(weights), 7, per_row=True, symmetric=True).entries:
        assert row[3] == 0
        assert torch.equal(row, -row.flip(0))


def test_dead_weights_do_not_move_the_grid_and_rows_have_their_own():
    weights = torch.tensor([[0.0, 1.0, 2.0], [0.0, 16.0, 32.0], [0.0, 0.0, 0.0]])
    grid = even_grid(weights, weights != 0, 2, per_row=True)
    assert grid.entries.tolist() == [[1.0, 2.0], [16.0, 32.0], [0.0, 0.0]]
    assert grid.round(weights)[1].tolist() == [16.0, 16.0, 32.0]


@pytest.mark.parametrize(("count", "distortion"), [(2, 0.3634), (4, 0.1188), (8, 0.03744), (16, 0.01154)])
def test_of_normal_weights_a_grid_is_as_good_as_the_best_uniform_quantiser(count, distortion):
    """Max 1960, table II; at 16 levels 19.4 dB."""
    weights = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(1))
    error = (even_grid(weights, _all(weights), count).round(weights) - weights).square().mean().item()
    assert error == pytest.approx(distortion, rel=0.03)


def test_pruning_three_quarters_of_normal_weights_loses_more_than_four_bits_do():
    """The comparison of Kuzmin et al. 2023 (arXiv 2307.02973): sixteen levels, or a quarter of the weights."""
    weights = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(1))
    kept = weights * (weights.abs() > weights.abs().quantile(0.75))
    rounded = even_grid(weights, _all(weights), 16).round(weights)
    pruning, quantising = (-10 * (other - weights).square().mean().log10().item() for other in (kept, rounded))
    assert pruning == pytest.approx(5.6, abs=0.1)
    assert quantising > 19


def test_a_codebook_is_the_best_of_all():
    values = torch.randn(9, generator=torch.Generator().manual_seed(2)).half().float()
    ordered = values.sort().values
    splits = itertools.combinations(range(1, 9), 2)
    costs = [sum(((p - p.mean()) ** 2).sum() for p in ordered.tensor_split(list(split))) for split in splits]
    found = codebook(values, 3)
    assert (found.round(values[None]) - values).square().sum().item() == pytest.approx(min(costs).item(), rel=1e-2)


def test_a_codebook_is_no_longer_than_there_are_values_and_never_empty():
    assert codebook(torch.tensor([1.0, 1.0, 2.0]), 8).entries.tolist() == [[1.0, 2.0]]
    assert codebook(torch.zeros(0), 8).entries.tolist() == [[0.0]]


def test_large_codebooks_and_many_values():
    values = torch.randn(300_000, generator=torch.Generator().manual_seed(3))
    errors = [(codebook(values, count).round(values[None]) - values).square().mean().item() for count in (16, 64)]
    assert errors[0] == pytest.approx(0.009497, rel=0.02)  # Max 1960, table I: 16 levels of their own places
    assert errors[1] < errors[0] / 7


@pytest.mark.parametrize(("said", "count"), [("ends", 5), ("end", 5), ("entries", 3)])
def test_levels_come_back_from_their_numbers(said, count):
    numbers = {"ends": [[-0.3, 0.7], [0.1, 0.2]], "end": [[0.3], [0.9]], "entries": [[-1.0, 0.2, 0.4]]}[said]
    levels = levels_from(np.float16(numbers), said, count)
    again = levels_from(levels.numbers(), said, levels.count)
    assert torch.equal(levels.entries, again.entries)
    assert levels.count == count
    assert bool((levels.entries.diff(dim=1) > 0).all())


def test_each_weight_goes_to_the_nearest_level():
    levels = levels_from(np.float16([[-1.0, 0.0, 4.0]]), "entries", 3)
    weights = torch.linspace(-3, 6, 200)[None]
    nearest = (weights[0, :, None] - levels.entries[0]).abs().argmin(1)
    assert torch.equal(levels.nearest(weights)[0], nearest)
    by_row = levels_from(np.float16([[-1.0, 1.0], [0.0, 1.0]]), "ends", 3)
    assert by_row.nearest(torch.tensor([[0.4, 0.6], [0.4, 0.8]])).tolist() == [[1, 2], [1, 2]]
