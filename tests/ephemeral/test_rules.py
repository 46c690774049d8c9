"""The rules of activation sparsity, by hand and by loops in Python."""

import math

import pytest
import torch
from torch import nn

from lightning_sparse.ephemeral.rules import boosted, magnitude_at, running_mean, winners
from lightning_sparse.ephemeral.selection import Selection


def by_hand(row, count):
    """The places of the largest, of equal ones the earlier."""
    return sorted(sorted(range(len(row)), key=lambda place: (-row[place], place))[:count])


@pytest.mark.parametrize(
    ("size", "density", "count"), [(7, 0.3, 2), (10, 0.1, 1), (10, 0.01, 1), (640, 0.1, 64), (5, 1.0, 5)]
)
def test_exactly_so_many_win_and_they_are_the_largest(size, density, count):
    x = torch.randn(20, size).round(decimals=1)  # with ties
    for given in (density, torch.tensor(density)):
        kept = winners(x, given)
        for row, places in zip(x.tolist(), kept, strict=True):
            assert places.nonzero().flatten().tolist() == by_hand(row, count)


def test_of_all_zeros_as_many_win_as_of_anything():
    """A comparison with the kth value, which is 0 after most ReLUs, would keep all ten."""
    x = torch.zeros(3, 10)
    assert (x >= x.topk(5).values[:, -1:]).sum() == 30
    assert winners(x, 0.5).sum() == 15


def test_boost_is_the_formula_of_the_paper():
    x, duty = [0.5, -1.0, 2.0], [0.9, 0.0, 0.3]
    found = boosted(torch.tensor(x), torch.tensor(duty), 0.3, 1.5)
    assert found.tolist() == pytest.approx([v * math.exp(1.5 * (0.3 - d)) for v, d in zip(x, duty, strict=True)])


def test_duties_stay_shares_where_the_published_rule_diverges():
    """Batches of 3000 and a period of 1000: the rule with T - B, and this one."""
    theirs, ours, seen = torch.tensor(0.5), torch.tensor(0.5), torch.tensor(0.0)
    batch, wins = torch.tensor(3000.0), torch.tensor(1200.0)
    for _ in range(5):
        theirs = (theirs * (1000 - 3000) + wins) / 1000
        ours = running_mean(ours, wins, batch, seen, 1000)
        seen = seen + batch
        assert float(ours) == pytest.approx(0.4)
    assert abs(float(theirs)) > 1


def test_a_running_mean_is_the_mean_until_the_period_is_full():
    wins = torch.randint(0, 9, (10,)).float()
    mean, seen = torch.tensor(0.0), torch.tensor(0.0)
    for count in wins:
        mean = running_mean(mean, count, torch.tensor(8.0), seen, 1000)
        seen = seen + 8
    assert float(mean) == pytest.approx(float(wins.sum()) / 80)
    assert float(running_mean(mean, torch.tensor(0.0), torch.tensor(0.0), seen, 1000)) == pytest.approx(float(mean))


@pytest.mark.parametrize("density", [0.05, 0.3, 1.0])
def test_a_threshold_lets_the_share_pass(density):
    x = torch.randn(50, 40)
    assert (x.abs() > magnitude_at(x, torch.tensor(density))).float().mean() == pytest.approx(density, abs=1 / 2000)
    large = torch.randn(500, 400)
    assert (large.abs() > magnitude_at(large, density)).float().mean() == pytest.approx(density, abs=0.01)


def test_in_a_convolution_all_positions_of_an_example_compete_and_a_channel_has_one_duty():
    layer, x = nn.Conv2d(3, 4, 3), torch.rand(5, 3, 6, 6)
    selection = Selection(layer, "k_winners", 1000)
    selection.density.fill_(0.25)
    (kept,) = selection(layer, (x,))
    assert (kept != 0).flatten(1).sum(1).tolist() == [27] * 5
    selection.settle()
    assert torch.allclose(selection.mean, (kept != 0).float().mean((0, 2, 3)))
    selection.boost.fill_(1.5)
    (again,) = selection(layer, (x,))
    score = x * (1.5 * (0.25 - selection.mean)).exp().view(1, 3, 1, 1)
    for row, found in zip(score.flatten(1).tolist(), again.flatten(1), strict=True):
        assert found.nonzero().flatten().tolist() == by_hand(row, 27)
    assert torch.equal(again[again != 0], x[again != 0])  # what is sent on is not boosted


def test_wins_are_counted_only_where_the_winner_is_positive():
    layer = nn.Linear(4, 2)
    selection = Selection(layer, "k_winners", 1000)
    selection.density.fill_(0.5)
    selection(layer, (torch.tensor([[1.0, 0.0, -1.0, -2.0], [3.0, 2.0, 0.0, 0.0]]),))
    selection.settle()
    assert selection.mean.tolist() == [1.0, 0.5, 0.0, 0.0]
    assert float(selection.seen) == 2


@pytest.mark.parametrize("rule", ["k_winners", "top_k", "threshold"])
def test_losers_get_no_gradient_and_straight_through_all_get_it_with_the_same_forward_pass(rule):
    layer, x = nn.Linear(10, 3).eval(), torch.rand(4, 10)
    selection = Selection(layer, rule, 1000)
    selection.eval_density.fill_(0.3)
    selection.mean.fill_(0.7 if rule == "threshold" else 0.0)
    layer.register_forward_pre_hook(selection)
    found = []
    for through in (False, True):
        selection.straight_through = through
        given = x.clone().requires_grad_()
        output = layer(given)
        output.sum().backward()
        found.append((output, given.grad))
    assert torch.equal(found[0][0], found[1][0])
    kept = x > 0.7 if rule == "threshold" else winners(x, 0.3)
    assert torch.equal(found[0][1] != 0, kept)
    assert torch.allclose(found[1][1], layer.weight.sum(0).expand(4, 10))


def test_eval_mode_keeps_its_own_share_and_counts_nothing():
    layer, x = nn.Linear(10, 3), torch.rand(4, 10)
    selection = Selection(layer, "k_winners", 1000)
    selection.density.fill_(0.2)
    selection.eval_density.fill_(0.3)
    (kept,) = selection(layer.eval(), (x,))
    assert (kept != 0).sum(1).tolist() == [3] * 4
    selection.settle()
    assert float(selection.seen) == 0
    (kept,) = selection(layer.train(), (x,))
    assert (kept != 0).sum(1).tolist() == [2] * 4


def test_sequences_and_single_examples_are_selected_along_the_last_axis():
    layer = nn.Linear(10, 3)
    selection = Selection(layer, "top_k", 1000)
    selection.density.fill_(0.2)
    for shape in ((10,), (5, 10), (2, 5, 10), (0, 10)):
        (kept,) = selection(layer, (torch.rand(shape) + 1,))
        assert kept.shape == shape
        assert ((kept != 0).sum(-1) == 2).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_stays(dtype):
    layer = nn.Linear(10, 3)
    for rule in ("k_winners", "top_k", "threshold"):
        selection = Selection(layer, rule, 1000)
        assert selection(layer, (torch.rand(4, 10, dtype=dtype),))[0].dtype == dtype
        selection.settle()
        assert bool(selection.mean.isfinite().all())
