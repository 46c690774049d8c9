"""Balls: by hand, by sampling, and at the edge of float32."""

import math

import pytest
import torch

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.robustness.balls import (
    check_eps,
    distance,
    project,
    random_start,
    steepest,
    uniform_point,
)


@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1.0, 1e30])
def test_a_steepest_step_has_length_one_however_small_or_large_the_gradient(scale):
    gradient = scale * torch.tensor([[3.0, 4.0], [0.0, 0.0]]).view(2, 1, 1, 2)
    torch.testing.assert_close(
        steepest(gradient, "L2").flatten(), torch.tensor([0.6, 0.8, 0.0, 0.0]), rtol=1e-3, atol=0
    )
    assert steepest(gradient, "Linf").flatten().tolist() == [1, 1, 0, 0]


def test_projection_by_hand():
    clean = torch.full((1, 1, 1, 2), 0.5)
    point = clean + torch.tensor([0.3, 0.4])
    torch.testing.assert_close(project(point, clean, 0.25, "L2").flatten(), torch.tensor([0.65, 0.7]))
    torch.testing.assert_close(project(point, clean, 0.35, "Linf").flatten(), torch.tensor([0.8, 0.85]))
    for norm in ("L2", "Linf"):
        assert torch.equal(project(point, clean, 1.0, norm), point)
        assert torch.equal(project(clean, clean, 0.1, norm), clean)


def test_uniform_points_fill_the_ball_by_volume():
    # In 4 dimensions half of the volume lies beyond 2 ** (-1 / 4) of the radius; a start's radius is uniform instead.
    torch.manual_seed(0)
    clean = torch.full((20_000, 1, 2, 2), 0.5)
    median = distance(uniform_point(clean, 0.4, "L2"), clean, "L2").median().item()
    assert median == pytest.approx(0.4 * 2 ** (-1 / 4), rel=0.01)
    assert distance(random_start(clean, 0.4, "L2"), clean, "L2").median().item() == pytest.approx(0.2, rel=0.03)
    assert distance(uniform_point(clean, 0.4, "L2"), clean, "L2").max().item() <= 0.4 + 1e-6
    assert (uniform_point(clean, 0.4, "Linf") - clean).abs().mean().item() == pytest.approx(0.2, rel=0.01)


@pytest.mark.parametrize("wrong", [0, -1, True, "1", math.inf, math.nan])
def test_anything_but_an_l2_radius_is_refused(wrong):
    with pytest.raises(SparsityError, match="is not a positive number"):
        check_eps("eps", wrong, "L2")


def test_an_l2_radius_may_exceed_one():
    assert check_eps("eps", 2, "L2") == 2.0
