"""Optimal brain surgery on one matrix, against explicit inverses and against least squares."""

import pytest
import torch

from engine.explicit_surgery import by_downdates, by_trailing_inverses
from lightning_sparse.engine.granularity import WEIGHTS, Groups
from lightning_sparse.engine.reconstruction import surgery


def problem(rows, columns, samples=None, seed=0):
    """A matrix, inputs that are correlated, and their damped Hessian."""
    torch.manual_seed(seed)
    inputs = torch.randn(samples or 3 * columns, columns).double() @ torch.randn(columns, columns).double()
    hessian = inputs.T @ inputs
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(columns).double()
    return torch.randn(rows, columns).double(), inputs, hessian, damped


def error(weight, other, inputs):
    return float((inputs @ (weight - other).T).square().sum())


@pytest.mark.parametrize("columns", [11, 300])
def test_with_a_given_mask_it_is_brain_surgery_weight_by_weight_from_left_to_right(columns):
    weight, _, hessian, damped = problem(4, columns)
    mask = torch.rand(weight.shape) < 0.4
    found, same = surgery(weight, hessian, mask)
    assert torch.equal(same, mask)
    torch.testing.assert_close(found, by_downdates(weight, damped, ~mask), rtol=1e-6, atol=1e-8)


def test_where_all_that_die_are_on_the_left_it_is_least_squares():
    weight, inputs, hessian, damped = problem(5, 12)
    for dead in range(1, 12):
        mask = torch.zeros(5, 12, dtype=torch.bool)
        mask[:, dead:] = True
        moved = torch.linalg.solve(damped[dead:, dead:], damped[dead:, :dead] @ weight[:, :dead].T).T
        found, _ = surgery(weight, hessian, mask)
        torch.testing.assert_close(found[:, dead:], weight[:, dead:] + moved)
    # The damping in words: 0.01 of the mean square, once for each weight, on how far it moves.
    rows = [inputs, (0.01 * hessian.diagonal().mean()).sqrt() * torch.eye(12).double()]
    stacked = torch.cat(rows)
    last = torch.linalg.lstsq(stacked[:, dead:], stacked @ weight.T).solution.T
    torch.testing.assert_close(found[:, dead:], last)


def test_it_lies_between_zeroing_and_the_best_weights_of_that_mask():
    for seed in range(5):
        weight, inputs, hessian, _ = problem(8, 30, seed=seed)
        mask = torch.rand(weight.shape) < 0.5
        found, _ = surgery(weight, hessian, mask)
        best = torch.zeros_like(weight)
        for row in range(8):
            best[row, mask[row]] = torch.linalg.lstsq(inputs[:, mask[row]], inputs @ weight[row]).solution
        zeroed = error(weight, weight * mask, inputs)
        assert error(weight, best, inputs) < error(weight, found, inputs) < zeroed


@pytest.mark.parametrize(("columns", "dies"), [(20, 61), (300, 900)])
def test_it_chooses_what_costs_least_block_by_block(columns, dies):
    weight, _, hessian, damped = problem(6, columns)
    expected, expected_mask = by_trailing_inverses(weight, damped, dies, 128)
    found, mask = surgery(weight, hessian, torch.ones_like(weight) > 0, dies)
    assert int((~mask).sum()) == dies
    assert torch.equal(mask, expected_mask)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("n", "m", "columns"), [(2, 4, 24), (1, 4, 260), (3, 150, 300)])
def test_n_of_m_are_chosen_where_each_group_begins(n, m, columns):
    weight, _, hessian, damped = problem(5, columns)
    dies = weight.numel() * (m - n) // m
    expected, expected_mask = by_trailing_inverses(weight, damped, dies, m, of_group=m - n)
    found, mask = surgery(weight, hessian, torch.ones_like(weight) > 0, dies, Groups(n, m))
    assert bool((mask.view(5, -1, m).sum(2) == n).all())
    assert torch.equal(mask, expected_mask)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_counts_are_exact_on_the_way_to_n_of_m_and_where_some_are_dead_already():
    weight, _, hessian, _ = problem(7, 40)
    mask = torch.ones_like(weight) > 0
    for units, deaths in ((Groups(2, 4), (33, 50, 57)), (WEIGHTS, (33, 101, 60))):
        alive = mask
        for dies in deaths:
            found, after = surgery(weight * alive, hessian, alive, dies, units)
            assert int(alive.sum() - after.sum()) == dies
            assert not (after & ~alive).any()
            assert bool((found[~after] == 0).all())
            alive = after
        if units != WEIGHTS:
            assert bool((alive.view(7, -1, 4).sum(2) == 2).all())


def test_inputs_that_are_always_zero_lose_their_weights_first_and_change_nothing_else():
    weight, inputs, _, _ = problem(4, 10)
    silent = torch.tensor([2, 3, 9])
    rest = torch.tensor([at for at in range(10) if at not in silent])
    inputs[:, silent] = 0.0
    hessian = inputs.T @ inputs
    found, mask = surgery(weight, hessian, torch.ones_like(weight) > 0, 10)
    assert not mask[:, silent].any(1).all()
    assert int(mask[:, silent].sum()) == 2  # ten of these twelve died, and no other
    assert bool((found[:, silent] == 0).all())
    torch.testing.assert_close(found[:, rest], weight[:, rest])
    given = torch.rand(4, 10) < 0.5
    alone, _ = surgery(weight[:, rest], hessian[rest][:, rest], given[:, rest])
    torch.testing.assert_close(surgery(weight, hessian, given)[0][:, rest], alone)
    assert bool(surgery(weight, torch.zeros_like(hessian), given)[0].eq(0).all())


def test_fewer_tokens_than_inputs_are_enough_to_go_on():
    weight, _, hessian, _ = problem(4, 60, samples=7)
    found, _ = surgery(weight.float(), hessian.float(), torch.ones_like(weight) > 0, 120)
    assert found.isfinite().all()
