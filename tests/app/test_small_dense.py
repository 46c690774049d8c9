"""The control small_dense: as many weights as a sparse network has left, in a dense one."""

from itertools import pairwise

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from omegaconf import OmegaConf

import lightning_sparse.app  # noqa: F401  registers the resolvers that configurations use
from lightning_sparse import SparsityError, sparsifiable
from lightning_sparse.app.build import build_model
from lightning_sparse.app.small_dense import small_width, sparsity_of_small
from lightning_sparse.models import lenet5, lenet_300_100, resnet20, small_cnn

NETS = [(lenet_300_100, (1, 28, 28)), (lenet5, (1, 28, 28)), (small_cnn, (1, 8, 8)), (resnet20, (3, 32, 32))]
SIZES = {lenet_300_100: (300, 100), lenet5: (6, 16, 120, 84), small_cnn: (32, 64, 128), resnet20: (16, 32, 64)}


def weights_of(net):
    return sum(weight.numel() for weight in sparsifiable(net).values())


@pytest.mark.parametrize(("make", "shape"), NETS)
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.98])
def test_the_small_width_is_that_of_the_nearest_network(make, shape, sparsity):
    """Against every network that there is: sizes change only where a factor times a hidden size is half an integer."""
    weights = round((1 - sparsity) * weights_of(make(shape, 10)))
    width = small_width(lambda width: make(shape, 10, width), weights)
    edges = {(k + 0.5) / size for size in SIZES[make] for k in range(size + 1)}
    edges = sorted(edge for edge in edges if 0.5 * width < edge < 2 * width)
    with torch.device("meta"):
        counts = [weights_of(make(shape, 10, (a + b) / 2)) for a, b in pairwise(edges)]
        found = weights_of(make(shape, 10, width))
    assert abs(found - weights) == min(abs(count - weights) for count in counts)
    assert len(str(width)) <= 7  # a number that can be read


def test_the_small_width_draws_nothing_and_knows_its_limits():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert small_width(lambda width: lenet_300_100((1, 28, 28), 10, width), 2 * 266_200) > 1.5
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(SparsityError, match=r"weights=500 is fewer than the smallest such model has \(795\)"):
        small_width(lambda width: lenet_300_100((1, 28, 28), 10, width), 500)
    with pytest.raises(SparsityError, match=r"make gives 266200 weights at any width"):
        small_width(lambda width: lenet_300_100((1, 28, 28), 10), 10**6)
    with pytest.raises(SparsityError, match=r"weights=0\.5 is not an integer of at least 1"):
        small_width(lambda width: lenet_300_100((1, 28, 28), 10, width), 0.5)


def composed(*overrides):
    with initialize_config_module("lightning_sparse.conf", version_base="1.3"):
        return compose("config", list(overrides))


def test_a_small_dense_network_has_the_weights_of_a_sparse_one_and_the_same_seed_the_same_weights():
    config = composed("sparsity=small_dense", "sparsity.final_sparsity=0.9", "model=small_cnn")
    torch.manual_seed(0)
    model = build_model(config)
    weights = sum(parameter.numel() for name, parameter in model.named_parameters() if parameter.dim() > 1)
    full = 9 * 32 + 9 * 32 * 64 + 256 * 128 + 128 * 10
    assert abs(weights - 0.1 * full) / full < 0.01
    assert sparsity_of_small(config, model) == 1 - weights / full
    torch.manual_seed(0)  # looking for the width draws nothing
    same = instantiate(config.model, net={"width": 1.0}, _convert_="all")
    torch.manual_seed(0)
    assert torch.equal(same.net[0].weight, build_model(composed("model=small_cnn")).net[0].weight)
    with pytest.raises(SparsityError, match="takes width="):
        build_model(composed("sparsity=small_dense", "model=own", "model._target_=torch.nn.Identity"))


def test_what_is_wrong_with_the_network_itself_is_not_called_a_lack_of_width():
    """A wrong shape, an unknown argument, a class that does not exist: all of them are of ``model.net``."""
    for wrong, says in (
        ("model.net.shape=[8,8]", r"shape=\[8, 8\] is not"),
        ("+model.net.depth=3", "unexpected keyword argument 'depth'"),
        ("model.net._target_=torch.nn.NoSuchNet", "NoSuchNet"),
    ):
        with pytest.raises(Exception, match=says) as error:
            build_model(composed("sparsity=small_dense", "model=small_cnn", wrong))
        assert "narrower" not in str(error.value)
    config = composed("sparsity=small_dense")
    OmegaConf.update(
        config, "model.net", {"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 2}, merge=False
    )
    with pytest.raises(SparsityError, match=r"(?s)can be made narrower.*takes width=.*argument 'width'"):
        build_model(config)
