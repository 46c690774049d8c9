from fnmatch import fnmatchcase

import pytest
from torch import nn

from lightning_sparse.anatomy.parameters import names_of
from lightning_sparse.anatomy.patterns import as_patterns
from lightning_sparse.models.networks import lenet_300_100, resnet18, resnet20


def matched(patterns, names):
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


@pytest.mark.parametrize(
    ("names", "avoid", "expected"),
    [
        (["2.weight"], ["0.weight"], ["2.weight"]),
        (["e.0.weight", "e.2.weight"], ["0.weight"], ["e.*"]),
        (["rnn.weight_ih_l0", "rnn.weight_ih_l1"], ["rnn.bias_ih_l0"], ["rnn.weight_ih_l*"]),
        (["h.0.a.weight", "h.1.a.weight"], ["h.0.b.weight", "g.a.weight"], ["h.*.a.weight"]),
        (["h.0.weight", "h.1.weight"], ["h.2.weight"], ["h.0.weight", "h.1.weight"]),
        (["odd[1].weight", "odd[2].weight"], ["odd1.weight"], ["odd[[]1].weight", "odd[[]2].weight"]),
        ([], ["a"], []),
    ],
)
def test_few_patterns_name_what_they_should(names, avoid, expected):
    found = as_patterns(names, avoid)
    assert matched(found, [*names, *avoid]) == names
    assert found == expected


@pytest.mark.parametrize("make", [lenet_300_100, resnet20, resnet18], ids=lambda make: make.__name__)
@pytest.mark.parametrize("kind", [nn.Linear, nn.Conv2d, nn.BatchNorm2d])
def test_the_weights_of_a_kind_of_layer_and_nothing_else(make, kind):
    net = make((3, 32, 32), 10)
    names = list(names_of(net))
    wanted = [n for n in names if isinstance(net.get_submodule(n.rpartition(".")[0]), kind) and n.endswith("weight")]
    found = as_patterns(wanted, [name for name in names if name not in wanted])
    assert matched(found, names) == wanted
    assert len(found) <= max(1, len(wanted) // 2 + 1)
