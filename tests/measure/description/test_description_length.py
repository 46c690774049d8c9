"""Description length: its parts against exact integers, Huffman's code and a second way to round; what it leaves behind."""

import copy
import heapq
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.compress.code_lengths import code_bits, mask_bits
from lightning_sparse.compress.quantise import quantise
from lightning_sparse.engine.masks import Masks
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier
from lightning_sparse.measure.description.description_length import measure_description_length


@pytest.fixture(scope="module")
def training():
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))[:1200]
    return torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1)[order], torch.tensor(data.target)[order]


def values(measured):
    return {row.metric.removeprefix("cost_"): row.value for row in measured.records}


def pruned(model, sparsity):
    model, masks = copy.deepcopy(model), {}
    for name, weight in sparsifiable(model).items():
        order = weight.detach().abs().flatten().argsort().argsort().view(weight.shape)
        masks[name] = order >= round(sparsity * weight.numel())
        weight.data[~masks[name]] = 0
    return model, Masks(masks)


@pytest.mark.parametrize(("total", "living"), [(1, 0), (1, 1), (10, 3), (266_200, 26_620), (5_000, 0), (5_000, 5_000)])
def test_the_mask_against_exact_integers(total, living):
    exact = math.log2(math.comb(total, living)) + math.log2(total + 1)
    assert mask_bits(total, living) == pytest.approx(exact, rel=1e-9)


def test_the_mask_costs_what_the_table_of_the_literature_says():
    """N H2(d) bits over the living, for LeNet-300-100's 266,200 weights."""
    for density, bits in [(0.5, 2.00), (0.25, 3.24), (0.1, 4.69), (0.05, 5.73), (0.02, 7.07), (0.01, 8.08)]:
        living = round(266_200 * density)
        assert mask_bits(266_200, living) / living == pytest.approx(bits, abs=0.006)


def huffman_bits(symbols):
    heap = np.unique(symbols, return_counts=True)[1].tolist()
    heapq.heapify(heap)
    length = 0
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        length += both
        heapq.heappush(heap, both)
    return length


def test_values_cost_their_entropy():
    symbols = np.random.default_rng(0).binomial(15, 0.3, size=5000)
    bits = code_bits(symbols, 0)
    assert bits <= huffman_bits(symbols) <= bits + len(symbols)
    shares = np.bincount(symbols) / 5000
    assert bits == pytest.approx(-5000 * (shares[shares > 0] * np.log2(shares[shares > 0])).sum())
    assert code_bits(symbols, 16) == pytest.approx(bits + math.log2(math.comb(len(symbols) + 15, 15)))
    assert code_bits(np.array([0] * 8 + [1] * 8 + [2] * 16), 0) == 16 * 2 + 16
    assert code_bits(np.zeros(100, dtype=int), 2) == pytest.approx(math.log2(101))  # nothing but how often each occurs
    assert code_bits(np.zeros(0, dtype=int), 256) == 0


@pytest.mark.parametrize("width", [1, 2, 5, 8])
def test_rounding_goes_to_the_nearest_level(width):
    numbers = np.random.default_rng(1).standard_normal(300)
    grid = np.linspace(numbers.min(), numbers.max(), 2**width)
    nearest = np.abs(numbers[:, None] - grid).argmin(axis=1)
    levels, rounded = quantise(numbers, width)
    assert (levels == nearest).all()
    assert rounded == pytest.approx(grid[nearest])
    assert (rounded.min(), rounded.max()) == (numbers.min(), pytest.approx(numbers.max()))


def by_hand(model, masks, images, labels, width):
    """The whole measurement once more, at a given width, on a copy: mean loss, bits of values, bits of labels."""
    copied = copy.deepcopy(model).eval()
    sparse, bits = sparsifiable(copied), 0.0
    for name, tensor in copied.state_dict(keep_vars=True).items():
        if name in sparse:
            alive = masks[name]
            living = tensor.detach()[alive].double()
            if width < 32:
                grid = torch.linspace(living.min(), living.max(), 2**width, dtype=torch.float64)
                levels = (living[:, None] - grid).abs().argmin(1)
                shares = levels.bincount().double() / len(levels)
                bits += len(levels) * -(shares * shares.clamp_min(1e-300).log2()).sum().item()
                bits += math.log2(math.comb(len(levels) + 2**width - 1, 2**width - 1)) + 64
                tensor.data[alive] = grid[levels].float()
        elif tensor.is_floating_point():
            tensor.data.copy_(tensor.half())
    with torch.no_grad():
        losses = F.cross_entropy(copied(images).double(), labels, reduction="none")
    return losses.mean().item(), bits, losses.sum().item() / math.log(2)


@pytest.mark.parametrize("sparsity", [0.0, 0.8])
def test_the_whole_by_hand(digits, training, sparsity):
    model, masks = pruned(digits.model, sparsity)
    images, labels = training
    found = measure_description_length(model, training, masks=masks)
    bits, width = values(found), int(values(found)["value_bits"])
    loss, of_values, of_labels = by_hand(model, masks, images, labels, width)
    with torch.no_grad():
        before = F.cross_entropy(copy.deepcopy(model).eval()(images), labels, reduction="none").double()
    allowed = before.mean().item() + before.std().item() / math.sqrt(1200)
    assert 1 < width <= 8
    assert loss <= allowed
    assert all(by_hand(model, masks, images, labels, coarser)[0] > allowed for coarser in range(1, width))
    assert bits["bits_values"] == pytest.approx(of_values)
    assert bits["bits_labels"] == pytest.approx(of_labels, rel=1e-4)
    counts = [(72, 8), (16384, 32), (320, 10)]  # weights and biases of the three layers
    living = [total - round(sparsity * total) for total, _ in counts]
    exact = [math.log2(math.comb(n, k) * (n + 1)) for (n, _), k in zip(counts, living, strict=True)]
    assert bits["bits_mask"] == pytest.approx(sum(exact))
    assert bits["bits_other"] == 16 * (8 + 32 + 10 + 4 * 8)  # with BatchNorm's weight, bias, mean and variance
    parts = ("mask", "values", "other", "labels")
    assert bits["bits"] == pytest.approx(sum(bits[f"bits_{part}"] for part in parts))
    assert found.arrays["label_bits"].shape == (1200,)
    assert found.arrays["label_bits"].sum() == pytest.approx(bits["bits_labels"], rel=1e-5)


def test_a_dense_network_pays_for_saying_so(digits, training):
    bits = values(measure_description_length(digits.model, training))
    assert bits["bits_mask"] == pytest.approx(sum(math.log2(n + 1) for n in (72, 16384, 320)))


def test_fewer_connections_take_fewer_bits(digits, training):
    dense, sparse = (
        values(measure_description_length(model, training)) for model in (digits.model, pruned(digits.model, 0.8)[0])
    )
    assert sparse["bits_values"] < dense["bits_values"] / 3
    assert sparse["bits"] < dense["bits"]
    assert sparse["bits_labels"] > dense["bits_labels"]


def test_without_masks_zeros_are_dead_and_with_them_a_living_zero_is_a_value(training):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    net[1].weight.data[:, :32] = 0
    few = values(measure_description_length(net, training))
    assert few["bits_mask"] == pytest.approx(math.log2(math.comb(640, 320) * 641))
    masks = {"1.weight": torch.ones(10, 64, dtype=torch.bool)}
    assert values(measure_description_length(net, training, masks=masks))["bits_mask"] == pytest.approx(math.log2(641))


def test_a_sample_is_scaled_and_only_then_has_an_interval(digits, training):
    images, labels = training[0][:400], training[1][:400]
    whole, scaled = (
        measure_description_length(digits.model, (images, labels), train_size=size) for size in (None, 1200)
    )
    assert values(scaled)["bits_labels"] == pytest.approx(3 * values(whole)["bits_labels"])
    for part in ("bits_mask", "bits_values", "bits_other", "value_bits"):
        assert values(scaled)[part] == values(whole)[part]
    ends = {row.metric: (row.low, row.high) for row in whole.records}
    assert all(math.isnan(low) and math.isnan(high) for low, high in ends.values())
    ends = {row.metric: (row.low, row.high, row.value) for row in scaled.records}
    half = 1.959964 * 1200 * whole.arrays["label_bits"].std(ddof=1) / math.sqrt(400)
    for metric in ("cost_bits_labels", "cost_bits"):
        low, high, value = ends[metric]
        assert (value - low, high - value) == (pytest.approx(half, rel=1e-4), pytest.approx(half, rel=1e-4))
    assert "scaled to 1200" in scaled.records[0].detail


def test_where_no_width_is_fine_enough_values_take_32_bits(digits, training):
    found = measure_description_length(digits.model, training, max_bits=1)
    bits = values(found)
    assert (bits["value_bits"], bits["bits_values"]) == (32, 32 * (72 + 16384 + 320))
    assert "none up to 1" in found.records[0].detail
    masks = pruned(digits.model, 0.0)[1]
    assert bits["bits_labels"] == pytest.approx(by_hand(digits.model, masks, *training, 32)[2], rel=1e-4)


def test_labels_cost_what_a_guess_costs_where_the_network_knows_nothing(training):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.constant_(net[1].weight, 0.5)
    nn.init.zeros_(net[1].bias)
    found = measure_description_length(net, training)
    assert values(found)["bits_labels"] == pytest.approx(1200 * math.log2(10))
    assert (values(found)["value_bits"], values(found)["bits_values"]) == (
        1,
        pytest.approx(64 + math.log2(641)),
    )  # one value: no entropy
    shares = np.bincount(training[1]) / 1200
    assert f"take {-1200 * (shares * np.log2(shares)).sum():.0f} bits" in found.records[0].detail


def test_a_statistic_too_large_for_float16_stays_finite(digits, training):
    model = copy.deepcopy(digits.model)
    factor = 2.0**40  # a power of two: the network's function does not change, but for eps
    model[0].weight.data *= factor
    model[0].bias.data *= factor
    model[1].running_mean *= factor
    model[1].running_var *= factor**2
    assert math.isfinite(values(measure_description_length(model, training))["bits"])


def test_it_leaves_no_trace_even_after_an_exception(digits, training):
    model = copy.deepcopy(digits.model).train()
    loss = model(training[0][:8]).square().sum()  # a graph that is still to be walked
    calls = []

    def fails(module, x):
        calls.append(1)
        if len(calls) == 3:
            raise KeyError("planted")
        return module(x)

    def state():
        return [*model.state_dict().values(), *(p.grad for p in model.parameters() if p.grad is not None)]

    before = [tensor.clone() for tensor in state()]
    versions, rng = [tensor._version for tensor in model.parameters()], torch.get_rng_state()
    with torch.inference_mode():
        measure_description_length(model, training)
    with pytest.raises(KeyError, match="planted"):
        measure_description_length(as_classifier(model, forward=fails), training, batch_size=1200)
    assert len(calls) == 3
    assert all(torch.equal(one, two) for one, two in zip(before, state(), strict=True))
    assert versions == [tensor._version for tensor in model.parameters()]
    assert torch.equal(rng, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    loss.backward()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_bits": 0}, "max_bits=0"),
        ({"max_bits": 17}, "max_bits=17"),
        ({"max_bits": True}, "max_bits=True"),
        ({"train_size": 1199}, "train_size=1199"),
        ({"train_size": 0.5}, "train_size=0.5"),
    ],
)
def test_bad_arguments_are_refused(digits, training, wrong, message):
    with pytest.raises(SparsityError, match=message):
        measure_description_length(digits.model, training, **wrong)


def test_one_image_is_refused(digits, training):
    with pytest.raises(SparsityError, match="standard error"):
        measure_description_length(digits.model, (training[0][:1], training[1][:1]))
