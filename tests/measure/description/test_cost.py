"""Cost: counted by hand and by torch's own FLOP counter, under masks and without, and one table from one call."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.engine.masks import Masks
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.description.cost import measure_cost
from lightning_sparse.measure.description.peak_memory import peak_memory
from lightning_sparse.measure.description.storage import storage_formats
from lightning_sparse.models.classifier import Classifier
from lightning_sparse.models.networks import resnet20, small_cnn


def values(measured):
    return {row.metric.removeprefix("cost_"): row.value for row in measured.records}


def some(n=8, shape=(1, 8, 8)):
    return torch.rand(n, *shape), torch.zeros(n, dtype=torch.long)


def test_a_small_network_by_hand():
    net = small_cnn((1, 8, 8), 10)
    weights = {"0.weight": 32 * 9, "3.weight": 64 * 32 * 9, "7.weight": 256 * 128, "9.weight": 128 * 10}
    uses = {"0.weight": 64, "3.weight": 16, "7.weight": 1, "9.weight": 1}  # positions of the maps
    living = {"0.weight": 100, "3.weight": 1000, "7.weight": 2000, "9.weight": 640}
    masks = {
        name: (torch.randperm(weight.numel()) < living[name]).view(weight.shape)
        for name, weight in sparsifiable(net).items()
    }
    Masks(masks).apply(sparsifiable(net))
    found = values(measure_cost(net, some(), masks=masks))
    biases = 32 + 64 + 128 + 10
    assert found["parameters"] == sum(weights.values()) + biases
    assert found["living"] == sum(living.values()) + biases
    assert found["flops_dense"] == sum(2 * weights[name] * uses[name] for name in weights)
    assert found["flops"] == pytest.approx(sum(2 * living[name] * uses[name] for name in weights))
    assert values(measure_cost(net, some())) == found  # the zeros say the same
    dense = values(measure_cost(small_cnn((1, 8, 8), 10), some()))
    assert (dense["living"], dense["flops"]) == (dense["parameters"], dense["flops_dense"])
    assert dense["flops_dense"] == found["flops_dense"]
    # what a dense kernel needs does not change
    assert all(dense[f"peak_memory_{what}"] == found[f"peak_memory_{what}"] for what in ("inference", "training"))


def test_flops_are_those_that_torch_counts():
    pytest.importorskip("torchvision")
    model = Classifier(resnet20((3, 8, 8), 10), mean=[0.5] * 3, std=[0.2] * 3)
    images, labels = some(4, (3, 8, 8))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    found = values(measure_cost(model, (images, labels)))
    assert found["flops_dense"] == counter.get_total_flops() / 4 > 0
    assert values(measure_cost(model, (images[:1], labels[:1])))["flops_dense"] == found["flops_dense"]


def test_memory_and_storage_are_in_the_table():
    net, (images, labels) = small_cnn((1, 8, 8), 10), some(20)
    measured = measure_cost(net, (images, labels), batch_size=16)
    found = values(measured)
    # A pass of the bare network; the wrapper looks for NaN in the logits, when most is gone already.
    assert found["peak_memory_inference"] == peak_memory(net, images[:16])
    assert found["peak_memory_training"] == peak_memory(net, images[:16], training=True)
    assert "batch size 16" in next(row.detail for row in measured.records if row.metric == "cost_peak_memory_training")
    assert measured.records[-5:] == storage_formats(net).records
    assert len(found) == len(measured.records) == 11
    assert all(row.metric.startswith("cost_") and row.detail for row in measured.records)
    assert measured.arrays == {}


def test_a_loader_is_read_no_further_than_needed():
    read = []

    def loader():
        for _ in range(10):
            read.append(1)
            yield some(16)

    measure_cost(small_cnn((1, 8, 8), 10), loader(), batch_size=32)
    assert len(read) == 2


def test_a_weight_used_without_its_layer_is_named_and_a_compiled_one_is_seen():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.last = nn.Linear(64, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.last(nn.functional.linear(x.flatten(1), self.hidden.weight))

    rows = {row.metric: row for row in measure_cost(Odd(), some()).records}
    assert rows["cost_flops_dense"].value == 2 * 15
    assert "without hidden.weight" in rows["cost_flops"].detail
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    assert values(measure_cost(torch.compile(net), some())) == values(measure_cost(net, some()))


def test_it_leaves_no_trace(digits):
    model = copy.deepcopy(digits.model).train()
    model[1].eval()
    before = [t.clone() for t in (*model.state_dict().values(), torch.get_rng_state())]
    with torch.inference_mode():
        measure_cost(model, (digits.images, digits.labels))
    after = [*model.state_dict().values(), torch.get_rng_state()]
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert [module.training for module in model] == [i != 1 for i in range(len(model))]
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_bad_input_is_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4))
    with pytest.raises(SparsityError, match="batch_size=0"):
        measure_cost(net, some(), batch_size=0)
    with pytest.raises(SparsityError, match="cannot train on 1 image"):
        measure_cost(net, some(), batch_size=1)
    with pytest.raises(SparsityError, match="images / 255"):
        measure_cost(net, (some()[0] * 255, some()[1]))
    with pytest.raises(SparsityError, match="is of no parameter"):
        measure_cost(net, some(), masks={"weight": torch.ones(1, dtype=torch.bool)})
