import pytest
import torch

from lightning_sparse.engine.scores.names import DROP, GROW
from lightning_sparse.engine.scores.of_layer import Layer, gradient, random
from lightning_sparse.engine.scores.of_network import is_of_network
from lightning_sparse.engine.scores.running import Momentum
from lightning_sparse.errors import SparsityError


def layer(weight=None, dense_gradient=None, seed=0):
    weight = torch.zeros(3) if weight is None else weight
    return Layer("w", weight, dense_gradient, torch.Generator().manual_seed(seed))


def test_random_depends_on_its_own_generator_only():
    torch.manual_seed(1)
    first = random(layer(seed=7))
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first, random(layer(seed=7)))
    assert not torch.equal(first, random(layer(seed=8)))
    torch.manual_seed(1)
    random(layer())
    assert torch.equal(state, torch.get_rng_state())


def test_a_missing_gradient_names_the_parameter_and_the_way_out():
    with pytest.raises(SparsityError, match=r"exclude=\['w'\]"):
        gradient(layer())


def test_momentum_is_the_running_mean_and_survives_a_round_trip():
    score, mean = Momentum(0.9), torch.zeros(3)
    for step in range(5):
        grad = torch.tensor([1.0, -2.0, 0.5]) * step
        score.observe(layer(dense_gradient=grad))
        mean = 0.9 * mean + 0.1 * grad
    assert torch.allclose(score(layer()), mean.abs())
    again = Momentum(0.9)
    again.load_state_dict(score.state_dict())
    assert torch.equal(again(layer()), score(layer()))


def test_every_named_score_gives_one_number_a_connection():
    given = layer(torch.randn(4, 3), torch.randn(4, 3))
    for score in {**DROP, **GROW}.values():
        if not is_of_network(score):  # those take the whole network
            score = score() if isinstance(score, type) else score
            assert score(given).shape == (4, 3)
