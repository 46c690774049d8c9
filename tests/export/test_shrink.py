"""What carries nothing is removed, and the outputs stay: by hand, on random networks, and on well-known ones."""

import copy
import dataclasses
import io
import pickle
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import gelu

from export.random_networks import Net, kill
from lightning_sparse import SparsityError
from lightning_sparse.export import shrink
from lightning_sparse.models import resnet20

pytest.importorskip("torch_pruning")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def zero(*tensors):
    with torch.no_grad():
        for tensor in tensors:
            tensor.zero_()


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def assert_same(model, small, example, count=3):
    """On inputs that shrink has not seen, of several sizes."""
    model, small = copy.deepcopy(model).eval(), copy.deepcopy(small).eval()
    for scale in (0.3, 1.0, 3.0)[:count]:
        fresh = scale * torch.randn(example.shape, generator=torch.Generator().manual_seed(7), dtype=example.dtype)
        with torch.no_grad():
            wanted, given = model(fresh), small(fresh)
        assert given.shape == wanted.shape
        assert (given - wanted).abs().max() <= 1e-5 * wanted.abs().max()


# By hand.


@pytest.mark.parametrize(("activation", "value"), [(nn.ReLU, 3.0), (nn.GELU, float(gelu(torch.tensor(3.0))))])
def test_a_dead_unit_with_a_bias_goes_into_the_bias_of_its_reader(activation, value):
    net = nn.Sequential(nn.Linear(4, 3), activation(), nn.Linear(3, 2))
    zero(net[0].weight[1])
    net[0].bias.data[1] = 3.0
    small = shrink(net, torch.rand(5, 4)).model
    assert (small[0].out_features, small[2].in_features) == (2, 2)
    torch.testing.assert_close(small[2].bias, net[2].bias + value * net[2].weight[:, 1])
    torch.testing.assert_close(small[2].weight, net[2].weight[:, [0, 2]])
    assert_same(net, small, torch.rand(5, 4))


def test_a_reader_without_a_bias_is_given_one_that_is_as_frozen_as_its_weight():
    for required in (True, False):
        net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2, bias=False)).requires_grad_(required)
        zero(net[0].weight[1])
        small = shrink(net, torch.rand(5, 4)).model
        torch.testing.assert_close(small[1].bias.data, net[0].bias[1].item() * net[1].weight[:, 1].data)
        assert [parameter.requires_grad for parameter in small.parameters()] == [required] * 4


@pytest.mark.parametrize(("bias", "channels"), [(0.5, 4), (0.0, 3)])
def test_a_padded_convolution_keeps_a_constant_that_is_not_zero(bias, channels):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    zero(net[0].weight[2])
    net[0].bias.data[2] = bias
    shrunk = shrink(net, torch.rand(2, 1, 6, 6))
    assert shrunk.model[0].out_channels == channels
    why = "1 of 4 channels are dead and stay: constants other than 0 cannot be folded into '2' (its padding is 0)"
    assert dict(shrunk.left) == ({"0": why} if bias else {})


def test_without_fold_only_zeros_go():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    zero(net[0].weight[:2], net[0].bias[0])
    net[0].bias.data[1] = 1.0
    shrunk = shrink(net, torch.rand(5, 4), fold=False)
    assert shrunk.model[0].out_features == 2
    assert shrunk.left["0"].endswith("constants other than 0 cannot be folded into '2' (fold=False)")
    assert shrink(net, torch.rand(5, 4)).model[0].out_features == 1


def test_constants_of_a_flattened_map_differ_from_place_to_place_and_are_folded_each():
    net = nn.Sequential(
        nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1), nn.Flatten(), nn.Linear(48, 2)
    ).double()
    zero(net[0].weight, net[2].weight[0])
    net[0].bias.data.fill_(1.0)  # the second convolution gives less at its borders
    shrunk = shrink(net, torch.rand(2, 1, 4, 4, dtype=torch.float64))
    assert shrunk.model[4].in_features == 16
    assert "one has to" in shrunk.left["2"]
    assert_same(net, shrunk.model, torch.rand(2, 1, 4, 4, dtype=torch.float64))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.inner, self.outer, self.last = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        x = self.first(x)
        return self.last(x + self.outer(torch.relu(self.inner(x))))


def test_a_sum_keeps_a_slot_until_all_that_write_it_are_dead():
    net = Residual()
    zero(net.first.weight[2])
    assert shrink(net, torch.rand(5, 4)).model.first.out_features == 4
    zero(net.outer.weight[2])
    small = shrink(net, torch.rand(5, 4)).model
    assert (small.first.out_features, small.outer.out_features, small.inner.in_features) == (3, 3, 3)
    assert_same(net, small, torch.rand(5, 4))


def test_what_only_unread_units_read_is_unread():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
    zero(net[4].weight[:, :4], net[2].weight[4:, :3])  # units 0 to 2 of the first layer lead to unread ones only
    small = shrink(net, torch.rand(5, 4)).model
    assert [tuple(small[i].weight.shape) for i in (0, 2, 4)] == [(2, 4), (2, 2), (2, 2)]


class AroundDepthwise(nn.Module):
    def __init__(self, around):
        super().__init__()
        self.first, self.deep = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.last, self.around = nn.Conv2d(4, 2, 1), around

    def forward(self, x):
        x = torch.relu(self.first(x) - 3)
        return self.last(x * self.around + self.deep(x))


@pytest.mark.parametrize(("around", "channels"), [(1, 4), (0, 2)])
def test_a_depthwise_kernel_of_zeros_silences_a_channel_only_if_there_is_no_way_around(around, channels):
    net, example = AroundDepthwise(around), torch.zeros(1, 3, 4, 4)
    zero(net.deep.weight[:2])  # and ReLU lets nothing through on this example, or on noise like it
    assert shrink(net, example).model.first.out_channels == channels


def test_a_norm_whose_weight_is_zero_silences_a_channel():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    zero(net[1].weight[1])
    net[1].bias.data[1] = 2.0
    small = shrink(net, torch.rand(1, 3, 4, 4)).model
    assert small[1].num_features == 3
    assert_same(net, small, torch.rand(1, 3, 4, 4))


class Mixing(nn.Module):
    def __init__(self, mix):
        super().__init__()
        self.first, self.last, self.mix = nn.Linear(4, 4), nn.Linear(4, 2), mix

    def forward(self, x):
        return self.last(self.mix(self.first(x)))


@pytest.mark.parametrize("mix", [lambda x: x.softmax(-1), lambda x: x * x.amax(1, keepdim=True), nn.LayerNorm(4)])
def test_what_is_unread_stays_where_channels_mix(mix):
    net = Mixing(mix)
    zero(net.last.weight[:, 0])
    net.first.bias.data[0] = -50.0  # softmax makes so little of it that the outputs hardly change
    shrunk = shrink(net, torch.rand(5, 4))
    assert shrunk.model.first.out_features == 4


def test_grouped_convolutions_keep_as_many_channels_in_every_group():
    net = nn.Sequential(nn.Conv2d(2, 8, 1), nn.Conv2d(8, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 1))
    zero(
        net[0].weight[:3], net[0].bias[:3], net[0].weight[5], net[0].bias[5]
    )  # three of the first group, one of the second
    shrunk = shrink(net, torch.rand(1, 2, 4, 4))
    assert (shrunk.model[1].in_channels, shrunk.model[1].groups) == (6, 2)
    assert shrunk.left["0"] == "2 of 8 channels are dead and stay: every group of '1' has to keep as many"
    assert_same(net, shrunk.model, torch.rand(1, 2, 4, 4))


def test_one_unit_stays_of_a_layer_that_is_dead():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    zero(net[0].weight)
    shrunk = shrink(net, torch.rand(5, 4))
    assert shrunk.model[0].out_features == 1
    assert shrunk.left["0"] == "1 of 3 channels are dead and stay: one has to"


def test_an_output_keeps_its_number():
    net = nn.Linear(4, 3)
    zero(net.weight[0])
    assert shrink(nn.Sequential(net), torch.rand(5, 4)).left["0"].endswith("reads it: it is an output")


def test_a_layer_that_is_called_twice_keeps_what_either_call_needs():
    shared = nn.Linear(4, 4)
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), shared, nn.ReLU(), shared, nn.Linear(4, 2))
    zero(net[0].weight[1])
    assert shrink(net, torch.rand(5, 4)).model[0].out_features == 4
    zero(shared.weight[1], shared.bias[1], net[0].bias[1])
    small = shrink(net, torch.rand(5, 4)).model
    assert small[2] is small[4]
    assert tuple(small[2].weight.shape) == (3, 3)
    assert_same(net, small, torch.rand(5, 4))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_inputs_of_an_lstm_go(bidirectional):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 6)
            self.lstm = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=bidirectional)

        def forward(self, x):
            return self.lstm(self.first(x))[0]

    net = Recurrent()
    zero(net.first.weight[:4])
    small = shrink(net, torch.rand(2, 7, 4)).model
    assert (small.lstm.input_size, small.first.out_features) == (2, 2)
    assert_same(net, small, torch.rand(2, 7, 4))


# Whatever the model is.


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor


def test_outputs_in_a_dataclass_inputs_by_name_and_whole_numbers():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.last = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, ids, scale=1.0):
            return Answer(self.last(self.words(ids) * scale))

    net, ids = Words(), torch.randint(9, (2, 5))
    zero(net.words.weight[:, 2])
    small = shrink(net, {"ids": ids, "scale": torch.tensor(2.0)}).model
    assert small.words.embedding_dim == 3
    torch.testing.assert_close(small(ids).logits, net(ids).logits)


def test_the_example_stays_as_it_is_where_the_model_writes_into_it():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3), nn.Linear(3, 2))
    example = torch.randn(5, 4)
    before = example.clone()
    shrink(net, example)
    assert torch.equal(example, before)


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float64, 1e-12), (torch.bfloat16, 3e-2)])
def test_other_precisions(dtype, precision):
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)).to(dtype)
    zero(net[0].weight[:3])
    example = torch.rand(4, 8, dtype=dtype)
    small = shrink(net, example).model
    assert small[0].out_features == 3
    assert {parameter.dtype for parameter in small.parameters()} == {dtype}
    torch.testing.assert_close(small(example), net(example), rtol=precision, atol=precision)


def test_a_compiled_model_is_shrunk_uncompiled():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    zero(net[0].weight[0])
    small = shrink(torch.compile(net, backend="eager"), torch.rand(5, 4)).model
    assert isinstance(small, nn.Sequential)
    assert small[0].out_features == 2


def test_a_weight_made_from_other_parameters_stays_and_is_named():
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU(), nn.Linear(3, 2))
    zero(net[2].weight[:, 0])
    assert shrink(net, torch.rand(5, 4)).model[0].out_features == 3
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 2))
    tied[1].weight = tied[0].weight
    zero(tied[0].weight[0])
    assert shrink(tied, torch.rand(5, 4)).left["0"].endswith("'1' shares a parameter with another layer")


class Lines(nn.Module):
    def forward(self, x):
        return "a line"


def refused(kind):
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    if kind == "locked":
        net[1].lock = threading.Lock()
    if kind == "in place":
        net.compile(backend="eager")
    if kind == "nan":
        net[2].weight.data.fill_(torch.nan)
    return {
        "part": lambda: nn.Sequential(torch.compile(net[0], backend="eager"), net[2]),
        "scripted": lambda: torch.jit.script(net),
        "meta": lambda: net.to("meta"),
        "lazy": lambda: nn.Sequential(nn.LazyLinear(3)),
        "text": Lines,
        "wrong": lambda: nn.Linear(5, 2),
    }.get(kind, lambda: net)()


REFUSED = {
    "locked": r"'1.lock' of model=Sequential cannot be copied \(TypeError",
    "in place": "a part of Sequential is compiled: give the model as it was",
    "part": "a part of Sequential is compiled",
    "scripted": "is scripted, and cannot be changed",
    "meta": "'0.weight' of Sequential has no values yet",
    "lazy": "'0.weight' of Sequential has no values yet",
    "text": "Lines gives no tensors that could be compared",
    "wrong": r"Linear does not run on example= \(RuntimeError",
    "nan": "the outputs of Sequential on example= are not finite",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_shrunk_is_refused_by_name(kind):
    with pytest.raises(SparsityError, match=REFUSED[kind]):
        shrink(refused(kind), torch.rand(5, 4))


class Noisy(nn.Module):
    def __init__(self, noise):
        super().__init__()
        self.net, self.noise = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), noise

    def forward(self, x):
        return self.net(x) + self.noise(x)


def test_random_outputs_are_compared_at_the_same_random_numbers_or_refused():
    net = Noisy(lambda x: torch.randn(len(x), 1))
    zero(net.net[0].weight[0])
    assert shrink(net, torch.rand(5, 4)).model.net[0].out_features == 2
    net.noise = lambda x: np.random.default_rng().random()
    with pytest.raises(SparsityError, match="Noisy gives other outputs each time"):
        shrink(net, torch.rand(5, 4))
    assert shrink(net.net, torch.rand(5, 4)).model[0].out_features == 2  # "give the part of it that does not"


def test_a_model_that_torch_pruning_cannot_follow_is_refused_with_the_layer():
    shufflenet = pytest.importorskip("torchvision").models.shufflenet_v2_x0_5()
    with pytest.raises(SparsityError, match="could not follow the channels of ShuffleNetV2 behind 'stage"):
        shrink(shufflenet, torch.rand(1, 3, 32, 32))
    small = shrink(shufflenet.conv1, torch.rand(1, 3, 32, 32)).model  # "give a child of the model that it can follow"
    assert small[0].out_channels == 24


def test_what_it_cannot_follow_in_part_stays_in_part():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.gru = nn.Linear(4, 6), nn.Linear(6, 6), nn.GRU(6, 5, batch_first=True)

        def forward(self, x):
            return self.gru(self.second(torch.relu(self.first(x))))[0]

    net = Gated()
    zero(net.first.weight[:4], net.second.weight[:4])
    shrunk = shrink(net, torch.rand(2, 7, 4))
    assert (shrunk.model.first.out_features, shrunk.model.second.out_features) == (2, 6)
    assert "torch-pruning cannot follow what 'second' writes" in shrunk.left["second"]


def test_a_lightning_module_is_copied_without_its_trainer():
    from lightning.pytorch import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))

        def forward(self, x):
            return self.net(x)

    module = Module()
    zero(module.net[0].weight[0])
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    module.trainer.lock = threading.Lock()
    small = shrink(module, torch.rand(5, 4)).model
    assert small._trainer is None
    assert small.net[0].out_features == 2


# 200 random networks.


def state(model):
    return {
        "tensors": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "needs": [parameter.requires_grad for parameter in model.parameters()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "grad": [parameter.grad for parameter in model.parameters()],
        "random": (torch.get_rng_state(), random.getstate()),
    }


def assert_untouched(before, after):
    assert before["tensors"].keys() == after["tensors"].keys()
    assert all(torch.equal(tensor, after["tensors"][name]) for name, tensor in before["tensors"].items())
    assert torch.equal(before["random"][0], after["random"][0])
    assert before["random"][1] == after["random"][1]
    assert all(before[key] == after[key] for key in ("modes", "needs", "hooks", "grad"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch: a hook of its own in InstanceNorm of one place
@pytest.mark.parametrize("seed", range(200))
def test_outputs_of_random_networks_stay_and_the_model_is_untouched(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    net = Net(draw)
    kill(net, draw, draw.choice([0.0, 0.3, 0.6, 0.9]))
    net.train(draw.random() < 0.5)
    next(net.parameters()).requires_grad_(draw.random() < 0.5)
    example = torch.randn(2, 3, 8, 8)
    before = state(net)
    shrunk = shrink(net, example)
    assert_untouched(before, state(net))
    small = shrunk.model
    assert [module.training for module in small.modules()] == before["modes"]
    assert parameters(small) <= parameters(net) + sum(layer.after[0] for layer in shrunk.layers)  # with new biases
    assert_same(net, small, example)
    shrunk.table()

    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    file.seek(0)
    copy.deepcopy(small).load_state_dict(torch.load(file))
    assert_same(small, pickle.loads(pickle.dumps(small)), example)
    optimizer = torch.optim.SGD(small.parameters(), 0.1)
    small.train()(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in small.parameters())


def test_random_networks_lose_what_is_dead():
    """The property holds for a shrink that removes nothing, too."""
    shares = []
    for seed in range(40):
        draw = random.Random(seed)
        torch.manual_seed(seed)
        net = Net(draw)
        kill(net, draw, 0.6)
        shares.append(parameters(shrink(net, torch.randn(2, 3, 8, 8)).model) / parameters(net))
    assert sum(shares) / len(shares) < 0.6


# Networks that people know.


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.up, self.join, self.out = (
            nn.ConvTranspose2d(16, 8, 2, 2),
            nn.Conv2d(16, 8, 3, padding=1),
            nn.Conv2d(8, 2, 1),
        )

    def forward(self, x):
        x = self.down(x)
        deep = self.deep(nn.functional.max_pool2d(x, 2))
        return self.out(torch.relu(self.join(torch.cat([x, self.up(deep)], 1))))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.lstm, self.last = nn.Linear(3 * 8, 16), nn.LSTM(16, 12, batch_first=True), nn.Linear(12, 5)

    def forward(self, x):
        return self.last(self.lstm(torch.relu(self.first(x.transpose(1, 2).flatten(2))))[0][:, -1])


def known(name):
    if name in ("ResNet-20", "U-Net", "LSTM"):
        return {"ResNet-20": lambda: resnet20((3, 8, 8), 5), "U-Net": UNet, "LSTM": Recurrent}[name](), 8
    if name in ("ViT", "Swin", "ConvNeXt"):
        timm = pytest.importorskip("timm")
        if name == "ViT":
            return timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=8, depth=2, num_classes=5), 16
        if name == "Swin":
            widths = {"img_size": 32, "window_size": 4, "depths": (1, 1), "num_heads": (3, 6)}
            return timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **widths), 32
        return timm.create_model("convnext_atto", depths=(1, 1, 1, 1), num_classes=5), 32
    models = pytest.importorskip("torchvision").models
    if name == "VGG":
        net = models.vgg11_bn(num_classes=5)
        net.avgpool, net.classifier = nn.Identity(), nn.Linear(512, 5)
        return net, 32
    return {
        "ResNet-18": lambda: models.resnet18(num_classes=5),
        "WRN": lambda: models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=5, width_per_group=128),
        "ResNeXt": lambda: models.ResNet(
            models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=5, groups=32, width_per_group=4
        ),
        "MobileNetV3": lambda: models.mobilenet_v3_small(num_classes=5),
        "DenseNet": lambda: models.DenseNet(8, (2, 2, 2, 2), 16, num_classes=5),
        "torchvision's ViT": lambda: models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5),
    }[name](), 32


# The largest share of parameters that is left where half of all rows are zero, biases and shifts with them.
KNOWN = {
    "ResNet-18": 0.75,
    "ResNet-20": 0.8,
    "WRN": 0.8,
    "ResNeXt": 0.95,
    "VGG": 0.4,
    "MobileNetV3": 0.8,
    "DenseNet": 0.75,
    "ViT": 0.75,
    "Swin": 0.8,
    "ConvNeXt": 0.65,
    "torchvision's ViT": 0.95,
    "LSTM": 0.8,
    "U-Net": 0.6,
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_networks_with_random_masks(name):
    torch.manual_seed(0)
    net, side = known(name)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd | nn.modules.batchnorm._BatchNorm):
                layer.weight.copy_(torch.randn(layer.weight.shape) / layer.weight[0].numel() ** 0.5)
                axis = 1 if getattr(layer, "transposed", False) else 0
                dead = torch.rand(layer.weight.shape[axis]) < 0.5
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.bias.zero_()
                    continue
                layer.weight.movedim(axis, 0)[dead] = 0
                if layer.bias is not None:
                    layer.bias[dead] = 0
    shrunk = shrink(net, torch.randn(1, 3, side, side))
    assert parameters(shrunk.model) < KNOWN[name] * parameters(net)
    assert_same(net, shrunk.model, torch.randn(2, 3, side, side), 2)
