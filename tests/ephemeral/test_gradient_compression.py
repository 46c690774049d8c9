"""What is sent and what is remembered, by hand: one process, and two simulated ones."""

import pytest
import torch
from torch import nn

from lightning_sparse import SparsityError
from lightning_sparse.ephemeral.gradient_compression import Compressor


def compressor(*shape, **arguments):
    return Compressor({"w": nn.Parameter(torch.zeros(*shape))}, **{"density": 0.25, **arguments})


def sent(one, gradient):
    values, places = one.chosen("w", torch.tensor([gradient]))
    assert places.dtype == torch.int32
    return dict(zip(places.tolist(), values.tolist(), strict=True))


def test_what_is_not_sent_is_added_to_the_next():
    one = compressor(1, 4)
    assert sent(one, [1.0, -3.0, 2.0, 0.5]) == {1: -3.0}
    assert sent(one, [1.0, 1.0, 1.0, 0.5]) == {2: 3.0}
    assert sent(one, [0.5, 0.0, 0.0, 0.0]) == {0: 2.5}
    assert one.state_dict()["residual"]["w"].tolist() == [0.0, 1.0, 0.0, 1.0]


def test_without_memory_it_is_lost():
    one = compressor(1, 4, memory=False)
    assert sent(one, [1.0, -3.0, 2.0, 0.5]) == {1: -3.0}
    assert sent(one, [1.0, 0.0, 1.5, 0.5]) == {2: 1.5}
    assert one.state_dict()["residual"] == {}


def test_momentum_correction_is_that_of_the_paper():
    """u <- m u + g; v <- v + u; the largest of v is sent, and u and v are zero there."""
    one = compressor(1, 4, momentum=0.5)
    assert sent(one, [4.0, 1.0, 2.0, 0.0]) == {0: 4.0}  # u = 0 1 2 0, v = 0 1 2 0
    assert sent(one, [1.0, 1.0, 1.0, 0.0]) == {2: 4.0}  # u = 1 1.5 2 0, v = 1 2.5 4 0
    assert one.state_dict()["velocity"]["w"].tolist() == [1.0, 1.5, 0.0, 0.0]
    assert one.state_dict()["residual"]["w"].tolist() == [1.0, 2.5, 0.0, 0.0]


def test_everything_that_was_ever_a_gradient_arrives_or_is_remembered():
    one, generator = compressor(6, 7, density=0.1), torch.Generator().manual_seed(0)
    total, arrived = torch.zeros(42), torch.zeros(42)
    for _ in range(50):
        gradient = torch.randn(6, 7, generator=generator)
        total += gradient.flatten()
        values, places = one.chosen("w", gradient)
        assert len(values) == 4
        arrived[places.long()] += values
    torch.testing.assert_close(arrived + one.state_dict()["residual"]["w"], total)


def test_the_dead_are_not_sent_and_what_was_remembered_of_them_is_forgotten():
    one = compressor(1, 4, density=0.5)
    assert sent(one, [1.0, 2.0, 3.0, 4.0]) == {3: 4.0, 2: 3.0}
    one.masks = {"w": torch.tensor([[True, False, False, True]])}
    assert sent(one, [0.0, 9.0, 9.0, 0.0]) == {0: 1.0}  # half of the two that live
    one.masks = {"w": torch.ones(1, 4) > 0}
    assert sent(one, [0.1, 0.0, 0.0, 0.2]) == {3: pytest.approx(0.2), 0: pytest.approx(0.1)}  # a newborn begins at zero


def test_a_place_of_the_dead_is_never_sent_not_even_for_want_of_others():
    one = compressor(1, 4, density=1 / 2)
    one.masks = {"w": torch.tensor([[False, False, True, True]])}
    assert sent(one, [5.0, 5.0, 0.0, 0.0]).keys() <= {2, 3}


def test_the_gradient_given_is_left_as_it_is():
    for arguments in ({}, {"memory": False}, {"momentum": 0.5}):
        gradient = torch.tensor([[1.0, -3.0, 2.0, 0.5]])
        compressor(1, 4, **arguments).chosen("w", gradient)
        assert gradient.tolist() == [[1.0, -3.0, 2.0, 0.5]]


def test_a_memory_of_another_model_is_refused():
    one, other = compressor(1, 4), compressor(2, 4)
    sent(one, [1.0, -3.0, 2.0, 0.5])
    with pytest.raises(SparsityError, match="remembers gradients of 'w' with 4 entries, and the model has no such"):
        other.load_state_dict(one.state_dict(), {"w": torch.zeros(2, 4)})
