"""The verb: combinations, sizes that are asked for, refusals before work; everything is decoded from its bytes."""

import copy
import random
import sys

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from compress.small_networks import accuracy, convolutional, digits, trained
from lightning_sparse import Curve, GradualPruning, Recipe, RigL, sparsifiable
from lightning_sparse.compress import (
    Code,
    DeepCompression,
    Factorise,
    Narrow,
    Prune,
    Quantise,
    Share,
    compress,
    decompress,
)
from lightning_sparse.compress.training import Training
from lightning_sparse.errors import OutOfReachError, SparsityError
from lightning_sparse.models import lenet_300_100

COMBINATIONS = [
    [Code()],
    [Prune(0.9)],
    [Prune(0.9), Code()],
    [Prune(0.9, allocation="erk"), Quantise(bits=4), Code()],
    [Prune(0.9), Share(bits=3)],
    [DeepCompression(0.95, bits=3)],
    [Quantise(bits=1)],
    [Quantise(bits=1, symmetric=True), Code()],
    [Quantise(bits=2, per="row", symmetric=True), Code()],
    [Quantise(bits=8)],
    [Quantise(levels=3, symmetric=True), Code()],
    [Share(bits=2, codebook_of="network"), Code()],
    [Share(entries=40), Code()],
    [Share(bits=8, assignment="hash"), Code()],
    [Prune(0.5), Share(bits=6, assignment="hash")],
    [Factorise(rank=6), Code()],
    [Factorise(share=0.3), Prune(0.5), Share(bits=4), Code()],
    [Factorise(share=0.2), Quantise(bits=6, per="row"), Code()],
]
NAMES = [" ".join(str(step) for step in steps) for steps in COMBINATIONS]


@pytest.fixture(scope="module")
def net():
    return trained()


def equal(one, other):
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("make", [trained, convolutional])
@pytest.mark.parametrize("steps", COMBINATIONS, ids=NAMES)
def test_what_is_scored_is_decoded_from_its_bytes(steps, make, net):
    model = net if make is trained else make()
    found = compress(model, steps)
    fresh = make() if make is convolutional else copy.deepcopy(net)
    for parameter in fresh.parameters():
        nn.init.normal_(parameter)
    assert equal(decompress(found.content, fresh), found.model)
    assert found.bits == 8 * len(found.content) == found.account.bits
    dense = sum(t.numel() for t in model.state_dict().values() if t.is_floating_point())
    assert found.share == pytest.approx(found.bits / (32 * dense))
    for line in ("mask", "total", "ideal", "float16"):
        assert line in found.table()
    if make is trained and isinstance(steps[-1], Code | DeepCompression):
        assert 0.8 < found.account.ideal_bits / found.bits < 1.5


@pytest.mark.parametrize("steps", COMBINATIONS, ids=NAMES)
def test_trained_weights_are_dead_and_at_their_levels_when_decoded(steps, net):
    found = compress(net, steps, data=digits()[0], fine_tune=4)
    prune = next((step for step in found.steps if isinstance(step, Prune)), None)
    levels = next((step for step in found.steps if isinstance(step, Quantise | Share)), None)
    weights = sparsifiable(found.model)
    total = sum(weight.numel() for weight in weights.values())
    if prune and prune.sparsity:
        dead = sum(int((weight == 0).sum()) for weight in weights.values())
        assert dead >= round(prune.sparsity * total)
    for name, weight in weights.items() if levels else ():
        count = levels.count if isinstance(levels, Quantise) else levels.entries or 2**levels.bits
        count *= 2 if getattr(levels, "assignment", "") == "hash" else 1  # and their negatives
        rows = weight if getattr(levels, "per", "") == "row" else [weight]
        assert all(len(row[row != 0].unique()) <= count for row in rows), name
    assert accuracy(found.model) > (
        0.6 if not any(word in found.table() for word in ("0.95", "bits=1", "hash")) else 0.1
    )


@pytest.mark.parametrize(
    ("steps", "bits"),
    [
        ([Prune(), Code()], 0.05),
        ([Prune(), Code()], 0.0125),
        ([Prune(), Share(bits=3), Code()], 0.0125),
        ([Prune(0.8), Share(), Code()], 0.05),
        ([Quantise(), Code()], 0.1),
        ([Quantise(symmetric=True), Code()], 0.06),
        ([Quantise(per="row"), Code()], 0.2),
        ([Share(), Code()], 0.1),
        ([DeepCompression()], 0.025),
        ([Factorise(), Code()], 0.1),
        ([Factorise(), Quantise(bits=5), Code()], 0.05),
        ([Factorise(share=0.5), Prune(), Code()], 0.05),
        ([Narrow(lambda width: lenet_300_100((1, 8, 8), 10, width)), Code()], 0.05),
    ],
    ids=lambda value: " ".join(type(step).__name__ for step in value) if isinstance(value, list) else str(value),
)
def test_a_size_that_is_asked_for_is_kept_and_nearly_used(steps, bits, net):
    found = compress(net, steps, bits=bits)
    assert 0.75 * bits < found.share <= bits
    (asked,) = (step for step in (steps[0].steps if isinstance(steps[0], DeepCompression) else steps) if step.free)
    (knob,) = (step for step in found.steps if type(step) is type(asked))
    assert not knob.free


def test_fine_tuning_brings_accuracy_back(net):
    untrained, tuned = (
        accuracy(compress(net, [DeepCompression(0.9, bits=3)], data=digits()[0], fine_tune=epochs).model)
        for epochs in (0, 10)
    )
    assert untrained < 0.7
    assert tuned > 0.85


def test_epochs_are_shared_by_the_steps_that_train(net):
    seen = []

    def loss(outputs, truth):
        seen.append(len(truth))
        return nn.functional.cross_entropy(outputs, truth)

    images, labels = digits()[0]
    for steps in ([Prune(0.9), Share(bits=3), Code()], [Quantise(bits=3), Code()], [Code()]):
        seen.clear()
        compress(net, steps, data=(images[:100], labels[:100]), fine_tune=3, batch_size=50, loss=loss)
        assert seen == [50] + [50, 50] * 3  # the first batch is tried before anything else


@pytest.mark.parametrize("method", [RigL(0.8, every=5), GradualPruning(0.8, end=0.5), Recipe(Curve(0.8))])
def test_any_recipe_prunes(method, net):
    found = compress(net, [Prune(method=method), Share(bits=4), Code()], data=digits()[0], fine_tune=4)
    weights = sparsifiable(found.model).values()
    assert sum(int((w == 0).sum()) for w in weights) >= 0.79 * sum(w.numel() for w in weights)
    with pytest.raises(SparsityError, match="has to be trained: write fine_tune=2"):
        compress(net, [Prune(method=method), Code()])


def test_the_model_its_modes_and_the_random_states_are_untouched(net):
    model = nn.Sequential(net, nn.Dropout(0.5), nn.BatchNorm1d(10))
    model[1].eval()
    before, flags = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    found = compress(model, [DeepCompression(0.9)], data=DataLoader(TensorDataset(*digits()[0]), 64), fine_tune=2)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [m.training for m in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]
    assert [m.training for m in found.model.modules()] == flags
    assert all(parameter.grad is None for parameter in found.model.parameters())


def test_a_lightning_module_with_its_trainer(tmp_path, net):
    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = copy.deepcopy(net)

        def forward(self, images):
            return self.net(images)

        def training_step(self, batch):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    module = Module()
    loader = DataLoader(TensorDataset(*digits()[0]), 64)
    Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False).fit(module, loader)
    found = compress(module, [Prune(0.5), Code()], data=loader, fine_tune=1)
    found.save(tmp_path / "net.lsc")
    assert equal(decompress(tmp_path / "net.lsc", Module()), found.model)


def test_the_same_seed_gives_the_same_bytes(net):
    contents = [
        compress(net, [DeepCompression(0.9)], data=digits()[0], fine_tune=2, seed=seed).content for seed in (1, 1, 2)
    ]
    assert contents[0] == contents[1] != contents[2]


def test_a_narrower_network_is_rebuilt_by_what_makes_it():
    def make(width):
        return lenet_300_100((1, 8, 8), 10, width)

    found = compress(make(1.0), [Narrow(make, width=0.3), Quantise(bits=4), Code()], data=digits()[0], fine_tune=4)
    assert equal(decompress(found.content, make), found.model)
    for wrong in (make(0.3), make(1.0)):
        with pytest.raises(SparsityError, match=r"has width 0.3: give make\(width\)"):
            decompress(found.content, wrong)


REFUSED = [
    ({"steps": []}, "is not a list of steps: write steps="),
    ({"steps": "prune"}, "is not a list of steps"),
    ({"steps": [Code(), Prune(0.9)]}, "out of order.*write them as Narrow, Factorise, Prune, Quantise or Share, Code"),
    ({"steps": [Quantise(bits=2), Share(bits=2)]}, "hold both Quantise and Share"),
    ({"steps": [DeepCompression(0.9), Code()]}, "hold both Code and Code"),
    ({"steps": [Prune()]}, "leaves sparsity open: write sparsity=..., or bits=0.05"),
    ({"steps": [Prune(), Share(), Code()], "bits": 0.1}, "Prune and Share leave one open each"),
    ({"steps": [Prune(0.9), Code()], "bits": 0.1}, "no step leaves one open"),
    ({"steps": [Quantise(), Code()], "bits": 0.01}, "cannot be reached by Quantise: the smallest found takes 0.0"),
    (
        {"steps": [Factorise(), Code()], "bits": 0.01},
        "bits=0.01 cannot be reached by Factorise: the smallest found takes 0.0",
    ),
    ({"steps": [Prune(), Code()], "bits": 0.0}, "bits=0 is no size"),
    ({"steps": [Prune(), Code()], "bits": 2}, "bits=2"),
    ({"steps": [Code()], "fine_tune": 1}, "data=None, and fine_tune=1 trains"),
    ({"steps": [Code()], "fine_tune": -1}, "fine_tune=-1"),
    ({"steps": [Factorise(rank=101), Code()]}, "rank=101"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_refused_before_any_work(arguments, words, net):
    with pytest.raises(SparsityError, match=words) as refused:
        compress(net, **arguments)
    assert isinstance(refused.value, OutOfReachError) == ("cannot be reached" in words)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Prune(1.0), "sparsity=1"),
        (lambda: Prune(0.9, method=RigL(0.9)), "has a sparsity of its own"),
        (lambda: Prune(method="rigl"), "is not a recipe"),
        (lambda: Quantise(bits=0), "bits=0"),
        (lambda: Quantise(bits=9), "bits=9"),
        (lambda: Quantise(bits=4, levels=4), "leave one out"),
        (lambda: Quantise(bits=4, per="channel"), "per='channel'"),
        (lambda: Share(bits=2.5), "bits=2.5"),
        (lambda: Share(bits=2, codebook_of="row"), "codebook_of='row'"),
        (lambda: Share(bits=2, assignment="md5"), "assignment='md5'"),
        (lambda: Factorise(rank=0), "rank=0"),
        (lambda: Factorise(kind="qr"), "kind='qr'"),
        (lambda: Factorise(share=0), "share=0"),
        (lambda: Narrow(0.5), "cannot be called"),
        (lambda: Narrow(lenet_300_100, width=0), "width=0"),
        (lambda: DeepCompression(0.9, bits=9), "bits=9"),
    ],
)
def test_steps_check_their_arguments(make, words):
    with pytest.raises(SparsityError, match=words):
        make()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"data": True}, "data=bool is no loader"),
        ({"data": (torch.rand(4, 64), torch.zeros(3))}, r"shapes \(4, 64\), \(3,\): give as many labels"),
        ({"data": [torch.rand(4, 64)]}, r"data gives a Tensor: let each batch be \(inputs, truth\)"),
        ({"optimizer": "adam"}, "optimizer=str cannot be called"),
        ({"optimizer": lambda weights: None}, "optimizer= returned NoneType"),
        ({"loss": None}, "loss=NoneType cannot be called"),
    ],
)
def test_what_cannot_train_is_refused(arguments, words, net):
    with pytest.raises(SparsityError, match=words):
        compress(net, [Prune(0.5)], **{"data": digits()[0], "fine_tune": 1, **arguments})


def test_the_smallest_ranks_are_found_where_only_they_fit():
    net = lenet_300_100((1, 8, 8), 10)
    small = compress(net, [Factorise(), Code()], bits=0.0125)
    assert 0.0113 < small.share < 0.0125  # ranks of 1: their ideal code takes more than 0.0125, their bytes do not
    with pytest.raises(OutOfReachError, match=r"bits=0\.011 .*the smallest found takes 0\.0114.*write bits=0\.012"):
        compress(net, [Factorise(), Code()], bits=0.011)
    assert compress(net, [Factorise(), Code()], bits=0.012).share <= 0.012


LABELS = torch.arange(8) % 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"data": (torch.rand(8, 64), LABELS.float())},
            "expected target dtype .*: give data that the model was trained on",
        ),
        ({"data": (torch.rand(8, 64), LABELS + 90)}, "out of bounds"),
        ({"data": (torch.rand(8, 63), LABELS)}, "first batch of data .* shapes cannot be multiplied"),
        ({"data": (torch.full((8, 64), torch.nan), LABELS)}, "loss=nan on the first batch of data"),
        ({"optimizer": lambda weights: torch.optim.Adam}, r"optimizer= returned type: write optimizer=lambda weights"),
        (
            {"steps": [Prune(0.5), Share()], "bits": 1e-3},
            r"bits=0.001 cannot be reached by Share: the smallest .* write bits=",
        ),
        ({"steps": [Narrow(lambda width: 5, 0.5)]}, r"make\(0.5\) returned int: let it build the network"),
        ({"model": nn.LazyLinear(4)}, "'weight' has no shape yet: call the model once on a batch"),
    ],
)
def test_what_would_fail_later_is_refused_before_any_training(change, words, monkeypatch):
    monkeypatch.setattr(Training, "run", lambda *arguments, **named: pytest.fail("it trains"))
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    asked = {"model": net, "steps": [Prune(0.5)], "data": (torch.rand(8, 64), LABELS), "fine_tune": 2} | change
    with pytest.raises(SparsityError, match=words):
        compress(**asked)


@pytest.mark.parametrize(("share", "library"), [(Share(3), "kmeans1d"), (Share(6), "sklearn"), (Share(), "sklearn")])
def test_a_library_that_a_later_step_needs_is_missed_before_any_training(share, library, monkeypatch):
    monkeypatch.setattr(Training, "run", lambda *arguments, **named: pytest.fail("it trains"))
    monkeypatch.setitem(sys.modules, "sklearn.cluster" if library == "sklearn" else library, None)
    data = torch.rand(8, 64), LABELS
    with pytest.raises(SparsityError, match=f"{library} could not be imported .* write pip install"):
        compress(nn.Linear(64, 10), [Prune(0.5), share], data=data, fine_tune=2, bits=0.5 if share.free else None)
