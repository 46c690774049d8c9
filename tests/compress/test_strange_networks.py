"""What networks bring along: zero layers, frozen ones, large and whole numbers in buffers, weights that others read."""

import copy

import pytest
import torch
from torch import nn

from lightning_sparse.compress import Code, Factorise, Prune, Quantise, Share, compress, decompress
from lightning_sparse.errors import SparsityError

ALL = [
    [Code()],
    [Prune(0.8), Code()],
    [Quantise(bits=4)],
    [Prune(0.8), Quantise(bits=3, per="row"), Code()],
    [Share(bits=2), Code()],
    [Share(bits=3, assignment="hash"), Code()],
    [Factorise(rank=3), Code()],
]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))


def data():
    torch.manual_seed(1)
    return torch.randn(128, 20), torch.randint(0, 5, (128,))


@pytest.mark.parametrize("fine_tune", [0, 2])
@pytest.mark.parametrize("steps", ALL, ids=lambda steps: " ".join(map(str, steps)))
def test_a_layer_of_zeros(steps, fine_tune):
    model = net()
    nn.init.zeros_(model[4].weight)
    found = compress(model, steps, data=data(), fine_tune=fine_tune)
    again = decompress(found.content, model)
    assert torch.equal(again(data()[0]), found.model(data()[0]))
    if isinstance(steps[0], Factorise):
        assert found.left_alone["4"].startswith("its weight is zero")
        assert bool(found.model[4].weight.any()) == bool(fine_tune)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("steps", ALL, ids=lambda steps: " ".join(map(str, steps)))
def test_weights_that_are_not_finite_are_refused_by_name(steps, value):
    model = net()
    model[2].weight.data[0, 0] = value
    with pytest.raises(SparsityError, match=r"'2\.weight' holds numbers that are not finite"):
        compress(model, steps)


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**-20, 2.0**17, 2.0**60])
@pytest.mark.parametrize("steps", ALL[1:6], ids=lambda steps: " ".join(map(str, steps)))
def test_small_and_large_weights_have_the_levels_of_ordinary_ones(steps, scale):
    model, scaled = net(), net()
    for at in (0, 2, 4):
        scaled[at].weight.data *= scale
    usual, found = compress(model, steps), compress(scaled, steps)
    for at in (0, 2, 4):
        assert torch.equal(decompress(found.content, model)[at].weight, found.model[at].weight)
        close = 4e-3 if steps == ALL[1] else 1e-3  # bfloat16 where no levels are
        assert torch.allclose(found.model[at].weight / scale, usual.model[at].weight, rtol=close, atol=1e-4)
    assert steps == ALL[1] or abs(len(found.content) - len(usual.content)) <= 3 * 3  # a few bytes a layer


def test_a_weight_among_others_that_float16_cannot_hold_is_kept():
    model = net()
    model[2].weight.data[0, 0] = 1e6
    for steps in ([Code()], [Share(bits=4)], [Quantise(bits=8, per="row")]):
        assert compress(model, steps).model[2].weight[0, 0].item() == pytest.approx(1e6, rel=1e-2)


def test_a_buffer_and_a_parameter_that_are_expanded_come_back_as_ones_of_their_own():
    model = net()
    model.register_buffer("scale", torch.tensor([0.5]).expand(64))
    model.register_buffer("counts", torch.tensor([[3], [4]]).expand(2, 5))
    found = compress(model, [Prune(0.5), Quantise(bits=3), Code()])
    assert torch.equal(found.model.scale, model.scale)
    assert torch.equal(decompress(found.content, model).counts, model.counts)
    found.model.scale[0] = 7.0
    assert found.model.scale[1] == 0.5
    assert model.scale.stride() == (0,)


def test_a_network_without_a_trainable_weight_is_coded_and_what_would_change_some_says_so():
    model = net().requires_grad_(False)
    found = compress(model, [Code()])
    assert torch.equal(decompress(found.content, model)[0].weight, model[0].weight.half().float())
    assert list(found.left_alone) == ["0.weight", "2.weight", "4.weight"]
    assert compress(nn.Sequential(nn.Embedding(5, 3), nn.LayerNorm(3)), [Code()]).left_alone.keys() == {"0.weight"}
    for step in (Prune(0.5), Quantise(bits=3), Share(bits=3)):
        with pytest.raises(
            SparsityError, match=rf"no trainable weight .* which {type(step).__name__} would change: write"
        ):
            compress(model, [step, Code()])
    assert compress(model.requires_grad_(True), [Prune(0.5), Code()]).left_alone == {}


def test_buffers_that_float16_cannot_hold_are_kept_to_the_bit_and_others_do_not_suffer():
    model = nn.Linear(20, 5)
    buffers = {
        "count": torch.tensor(100_001.0),
        "position": torch.arange(4096.0),
        "mask": torch.full((4, 4), -torch.inf).triu(1),
        "tiny": torch.tensor([1.23e-9]),
        "none": torch.zeros(0, dtype=torch.long),
    }
    for name, buffer in buffers.items():
        model.register_buffer(name, buffer)
    found = compress(model, [Code()])
    for name, buffer in buffers.items():
        assert torch.equal(getattr(found.model, name), buffer)
    assert torch.equal(found.model.bias, model.bias.half().float())


def test_small_weights_are_no_less_exact():
    model = net()
    model[0].weight.data *= 1e-7
    found = compress(model, [Code()]).model[0].weight
    assert (found - model[0].weight).norm() < 4e-3 * model[0].weight.norm()


def test_a_frozen_batchnorm_stays_as_it_is_and_what_stays_dense_is_named():
    model = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.Linear(16, 16), nn.Linear(16, 5), nn.LSTM(5, 3))
    model[1].requires_grad_(False).eval()
    model[2].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    trained = nn.Sequential(*model[:4])
    found = compress(trained, [Prune(0.5), Code()], data=data(), fine_tune=2)
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked", "2.weight"):
        wanted = before[name]
        assert torch.equal(found.model.state_dict()[name], wanted if "num" in name else wanted.half().float())
    assert list(found.left_alone) == ["2.weight"]
    assert "4.weight_ih_l0" in compress(model, [Prune(0.5), Code()]).left_alone
    assert "left alone: 2.weight: no trainable weight" in found.table()


def test_the_string_of_other_shapes_is_refused_though_its_numbers_would_fit():
    content = compress(nn.Sequential(nn.Linear(8, 4, bias=False)), [Prune(0.5), Quantise(bits=3)]).content
    with pytest.raises(SparsityError, match="tensors of other names or shapes"):
        decompress(content, nn.Sequential(nn.Linear(4, 8, bias=False)))
    assert decompress(bytearray(content), nn.Sequential(nn.Linear(8, 4, bias=False)))[0].weight.shape == (4, 8)


class Forgetful(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def state_dict(self, *args, **kwargs):
        return {name: value for name, value in super().state_dict(*args, **kwargs).items() if "head" in name}


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"some": "thing"}


def test_a_state_that_lacks_something_or_holds_something_else_is_refused():
    with pytest.raises(SparsityError, match=r"'body.weight' is not in model.state_dict\(\)"):
        compress(Forgetful(), [Code()])
    with pytest.raises(SparsityError, match=r"'_extra_state' in .* is no tensor but a dict"):
        compress(Extra(4, 2), [Code()])


class Reads(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(32, 16)

    def forward(self, x):
        return nn.functional.linear(x.to(self.layer.weight.dtype), self.layer.weight, self.layer.bias)


def test_a_model_that_reads_the_weight_of_a_factorised_layer_runs():
    model, images = Reads(), torch.randn(64, 32)
    found = compress(model, [Factorise(rank=8), Code()], data=(images, torch.randint(0, 16, (64,))), fine_tune=2)
    assert torch.allclose(found.model(images), found.model.layer(images), atol=1e-5)


def test_inputs_by_name():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(20, 5)

        def forward(self, pixels):
            return self.layer(pixels)

    images, labels = data()
    loader = [({"pixels": some}, truth) for some, truth in zip(images.split(32), labels.split(32), strict=True)]
    assert compress(Named(), [Prune(0.5)], data=loader, fine_tune=1).share < 1
    with pytest.raises(SparsityError, match="data is empty"):
        compress(Named(), [Prune(0.5)], data=[], fine_tune=1)
