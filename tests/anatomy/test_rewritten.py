"""Layers that rewrite their weight on its way to the kernel are found in one forward pass that changes nothing."""

import copy
import re

import pytest
import torch
import torchvision
from timm.layers import ScaledStdConv2d, StdConv2d
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn.functional import conv2d, dropout, linear, normalize
from transformers.pytorch_utils import Conv1D

from lightning_sparse import SparsityError
from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.anatomy.rewritten import watch_for_rewriting


class Own(nn.Linear):
    """A square Linear with a forward of its own."""

    def __init__(self):
        super().__init__(8, 8)
        self.low = nn.Parameter(torch.zeros(8, 2))
        self.high = nn.Parameter(torch.ones(2, 8))
        self.register_buffer("seen", torch.zeros(8, 8))


class Standardised(Own):
    def forward(self, x):
        return linear(
            x, (self.weight - self.weight.mean(1, keepdim=True)) / self.weight.std(1, keepdim=True), self.bias
        )


class InPlace(Own):
    def forward(self, x):
        weight = self.weight.clone()
        self.seen.copy_(weight.sub_(weight.mean()).detach())
        return x @ weight


class WithSum(Own):  # low is zero: today the sum is the weight, but not after the first step
    def forward(self, x):
        return linear(x, self.weight + self.low @ self.high)


class Orthogonalised(Own):  # the weight itself enters a matrix product, but with itself
    def forward(self, x):
        weight = self.weight / self.weight.norm()
        return linear(x, 1.5 * weight - 0.5 * weight @ weight.T @ weight)


class OfAnother(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x):
        return linear(x, self.inner.weight - self.inner.weight.mean(0))


class StandardisedConv(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean((1, 2, 3), keepdim=True), bias)


class Scaled(Own):
    def forward(self, x):
        return linear(x, self.weight * 8**-0.5, self.bias)


class Beside(Own):
    def forward(self, x):
        return linear(x, self.weight) + x @ self.low @ self.high


class SpectrallyNormalised(Own):
    def forward(self, x):
        with torch.no_grad():
            right = normalize(self.weight.T @ torch.ones(8), dim=0)
            left = normalize(self.weight @ right, dim=0)
        return linear(x, self.weight / (left @ self.weight @ right))


class Normalised(OfAnother):
    def forward(self, x):
        return linear(normalize(x), normalize(self.inner.weight))


class DroppedAndCast(Own):
    def forward(self, pair, *, more):
        self.seen += 1
        x = pair[0] + more["x"]
        return linear(x.double(), dropout(self.weight, 0.5).T.contiguous().T.double()).float()


class Modulated(nn.Conv2d):
    """The weight is multiplied by the input, element by element, and its copies for the images are one kernel."""

    def forward(self, x):
        weight = self.weight[None] * x.mean((2, 3))[:, None, :, None, None]
        weight = weight * weight.square().sum((2, 3, 4), keepdim=True).rsqrt()
        return conv2d(x.flatten(0, 1)[None], weight.flatten(0, 1), groups=len(x))


ROWS, IMAGES = torch.rand(4, 8), torch.rand(2, 3, 6, 6)
REWRITTEN = {
    "StdConv2d": (lambda: StdConv2d(3, 4, 3), IMAGES),
    "StdConv2d, one image": (lambda: StdConv2d(3, 4, 3), IMAGES[:1]),
    "StdConv2d, bfloat16": (lambda: StdConv2d(3, 4, 3).bfloat16(), IMAGES.bfloat16()),
    "ScaledStdConv2d": (lambda: ScaledStdConv2d(3, 4, 3), IMAGES),
    "_conv_forward": (lambda: StandardisedConv(3, 4, 3), IMAGES),
    "Linear": (Standardised, ROWS),
    "in place": (InPlace, ROWS),
    "sum": (WithSum, ROWS),
    "orthogonal": (Orthogonalised, ROWS),
    "of another layer": (OfAnother, ROWS),
}
KEPT = {
    "equalised learning rate": (Scaled, ROWS),
    "beside": (Beside, ROWS),
    "spectral": (SpectrallyNormalised, ROWS),
    "normalised rows of another layer": (Normalised, ROWS),
    "Conv1D": (lambda: Conv1D(8, 8), ROWS),
    "modulated": (lambda: Modulated(3, 4, 3), IMAGES),
}


def watched(model):
    return [module for module in model.modules() if "forward" in vars(module)]


def watch(model):
    return watch_for_rewriting(model, sparsifiable(model, include=["*.weight"]))


@pytest.mark.parametrize(("make", "x"), REWRITTEN.values(), ids=REWRITTEN)
def test_rewritten_weights_are_refused_in_the_first_forward_pass(make, x):
    net = nn.Sequential(make())
    watch(net)
    name = next(name for name, _ in net.named_parameters() if name.endswith("weight"))
    with pytest.raises(SparsityError, match=f"{name!r} is rewritten by the forward of {type(net[0]).__name__} "):
        net(x)
    assert not watched(net)


def test_they_are_refused_under_autocast_too():
    net = nn.Sequential(StdConv2d(3, 4, 3))
    watch(net)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(SparsityError, match="is rewritten"):
        net(IMAGES)


@pytest.mark.parametrize(("make", "x"), KEPT.values(), ids=KEPT)
def test_what_keeps_zeros_or_cannot_be_followed_computes_as_before(make, x):
    torch.manual_seed(0)
    net = nn.Sequential(make())
    expected = net(x)
    watch(net)
    assert watched(net) == [net[0]]
    assert torch.equal(net(x), expected)
    assert not watched(net)


def test_arguments_random_numbers_buffers_and_gradients_are_those_of_an_unwatched_pass():
    results = []
    for look in (lambda net: None, watch):
        torch.manual_seed(0)
        net = nn.ModuleList([DroppedAndCast()])
        look(net)
        out = net[0]((ROWS, 3), more={"x": ROWS})
        out.sum().backward()
        results.append([out, torch.rand(3), net[0].seen, net[0].weight.grad])
        assert not watched(net)
    assert all(map(torch.equal, *results))
    assert results[0][2].unique().tolist() == [1.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: torchvision.models.resnet18(num_classes=3),
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1),
        lambda: nn.Sequential(nn.LSTM(8, 4), nn.MultiheadAttention(8, 2), nn.Embedding(3, 4), nn.Bilinear(2, 2, 2)),
    ],
)
def test_networks_of_torchs_layers_are_not_touched(make):
    net = make()
    assert watch_for_rewriting(net, dict(net.named_parameters())) == []
    assert not watched(net)


def test_a_forward_put_on_one_layer_is_checked_and_put_back():
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    net[0].forward = own = lambda x: linear(x, net[0].weight.softmax(1))
    (off,) = watch(net)
    off()
    assert net[0].forward is own
    watch(net)
    with pytest.raises(
        SparsityError, match=r"'0.weight' is rewritten by the forward of Linear .* exclude=\['0.weight'\]"
    ):
        net(ROWS)
    assert net[0].forward is own
    assert watched(net) == [net[0]]


def test_a_copy_made_meanwhile_computes_with_its_own_weights():
    net = nn.Sequential(Scaled())
    (off,) = watch(net)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin[0].weight.zero_()
    assert torch.equal(twin(ROWS), twin[0].bias.expand(4, 8))
    assert (watched(twin), watched(net)) == ([], [net[0]])
    off()
    assert not watched(net)


def test_advice_is_a_pattern_where_it_fits_no_other_layer():
    net = nn.ModuleDict({"stages": nn.Sequential(*[StdConv2d(3, 3, 1) for _ in range(30)]), "head": nn.Linear(3, 2)})
    watch(net)
    with pytest.raises(SparsityError, match=re.escape("exclude=['stages.*.weight']")):
        net["stages"](IMAGES)
    assert list(sparsifiable(net, exclude=["stages.*.weight"])) == ["head.weight"]


def test_compiled_models_are_not_touched_and_their_layers_tried_at_once():
    net = nn.Sequential(StdConv2d(3, 4, (3, 1), dilation=2), nn.Linear(2, 2))
    with pytest.raises(SparsityError, match=r"'0.weight' is rewritten by the forward of StdConv2d"):
        watch_for_rewriting(torch.compile(net, backend="eager"), sparsifiable(net))
    net = nn.Sequential(Scaled(), DroppedAndCast())  # the second takes something else than one tensor
    state = torch.get_rng_state()
    assert watch_for_rewriting(torch.compile(net, backend="eager"), sparsifiable(net)) == []
    assert not watched(net)
    assert not net[1].seen.any()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_compiled_step_around_the_model_stays_one_graph():
    net, counter = nn.Sequential(Scaled()), CompileCounter()
    (off,) = watch(net)
    step = torch.compile(lambda x: net(x).sum(), backend=counter, fullgraph=True)
    for _ in range(3):
        step(ROWS)
    assert counter.frame_count == 1
    off()
    assert not watched(net)
