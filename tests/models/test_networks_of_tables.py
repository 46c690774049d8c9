"""The networks that papers on sparse training compare on have the weights that their papers say, counted by hand."""

from itertools import pairwise

import pytest
import torch
from hydra.utils import instantiate

from app.test_configs import composed
from app.test_job_names import job
from lightning_sparse import SparsityError, sparsifiable
from lightning_sparse.models import resnet18, resnet20, resnet56, vgg16, vit_tiny, wide_resnet


def conv(before, after, side=3):
    return side * side * before * after


def of_resnet(blocks, classes=10):
    """Convolutions; every BatchNorm has two numbers for each channel; 1x1 convolutions with BatchNorm as shortcuts."""
    found = conv(3, 16) + 2 * 16
    for before, after in ((16, 16), (16, 32), (32, 64)):
        found += conv(before, after) + (2 * blocks - 1) * conv(after, after) + 2 * blocks * 2 * after
        found += 0 if before == after else before * after + 2 * after
    return found + 64 * classes + classes


def of_wide_resnet(depth, widen, classes=10):
    """In front of every convolution of a block BatchNorm, of what comes in; one more at the end; no bias."""
    found, blocks, before = conv(3, 16), (depth - 4) // 6, 16
    for after in (16 * widen, 32 * widen, 64 * widen):
        found += 2 * before + conv(before, after) + 2 * after + conv(after, after) + before * after
        found += (blocks - 1) * 2 * (2 * after + conv(after, after))
        before = after
    return found + 2 * before + before * classes + classes


def of_vgg16(classes=10):
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    return sum(conv(*pair) + 2 * pair[1] for pair in pairwise(channels)) + 512 * classes + classes


def of_resnet18(classes=10):
    found = conv(3, 64) + 2 * 64
    for before, after in ((64, 64), (64, 128), (128, 256), (256, 512)):
        found += conv(before, after) + 3 * conv(after, after) + 4 * 2 * after
        found += 0 if before == after else before * after + 2 * after
    return found + 512 * classes + classes


def of_vit(layers=12, wide=192, patch=4, side=32, classes=10):
    """Of a block: four maps of attention, an MLP of four times the dimensions, two LayerNorms; all with biases."""
    block = 4 * (wide * wide + wide) + (wide * 4 * wide + 4 * wide) + (4 * wide * wide + wide) + 2 * 2 * wide
    places = (side // patch) ** 2 + 1
    patches = 3 * patch * patch * wide + wide
    return patches + wide + places * wide + layers * block + 2 * wide + wide * classes + classes


@pytest.mark.parametrize(
    ("make", "arguments", "by_hand", "millions"),
    [
        (resnet20, {}, of_resnet(3), 0.27),  # He et al. 2016, table 6
        (resnet56, {}, of_resnet(9), 0.85),
        (resnet18, {}, of_resnet18(), 11.17),
        (wide_resnet, {"depth": 22, "widen": 2}, of_wide_resnet(22, 2), 1.08),
        (wide_resnet, {"depth": 28, "widen": 4}, of_wide_resnet(28, 4), 5.85),  # "5.8" or "5.9"
        (wide_resnet, {"depth": 16, "widen": 8}, of_wide_resnet(16, 8), 10.96),  # Zagoruyko & Komodakis 2016: 11.0
        (wide_resnet, {"depth": 40, "widen": 4}, of_wide_resnet(40, 4), 8.95),  # 8.9
        (vgg16, {}, of_vgg16(), 14.72),
        (vit_tiny, {}, of_vit(), 5.36),
    ],
)
def test_they_have_the_weights_of_their_papers(make, arguments, by_hand, millions):
    with torch.device("meta"):
        net = make((3, 32, 32), 10, **arguments)
    found = sum(parameter.numel() for parameter in net.parameters())
    assert found == by_hand
    assert found / 1e6 == pytest.approx(millions, abs=0.01)


def test_the_vision_transformer_has_as_many_as_timms():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        theirs = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=10)
    assert of_vit() == sum(parameter.numel() for parameter in theirs.parameters())


@pytest.mark.parametrize(
    ("make", "shape", "width"),
    [
        (resnet56, (3, 8, 8), 0.25),
        (wide_resnet, (3, 8, 8), 0.25),
        (wide_resnet, (1, 9, 7), 0.01),
        (vgg16, (3, 32, 32), 0.05),
        (vgg16, (1, 40, 33), 0.05),
        (vit_tiny, (3, 8, 8), 0.1),
        (vit_tiny, (1, 12, 8), 0.01),
    ],
)
def test_any_width_gives_logits_and_trains(make, shape, width):
    net = make(shape, 7, width)
    logits = net(torch.rand(3, *shape))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_a_wide_block_is_preactivated_and_its_shortcut_reads_what_the_convolution_reads():
    """Zagoruyko & Komodakis' own code, written out for the first block."""
    torch.manual_seed(0)
    net = wide_resnet((3, 8, 8), 10, depth=10, widen=2).eval()
    x, block = torch.rand(2, 16, 8, 8), net[1]
    o1 = torch.relu(block.norm1(x))
    o2 = torch.relu(block.norm2(torch.nn.functional.conv2d(o1, block.conv1.weight, padding=1)))
    z = torch.nn.functional.conv2d(o2, block.conv2.weight, padding=1)
    assert torch.allclose(block(x), z + torch.nn.functional.conv2d(o1, block.shortcut.weight), atol=1e-6)


def test_the_class_token_sees_where_patches_are():
    """Patches that change places change the logits, because places are learned."""
    torch.manual_seed(0)
    net = vit_tiny((1, 8, 8), 5, layers=2).eval()
    image = torch.rand(1, 1, 8, 8)
    assert not torch.allclose(net(image), net(image.roll(4, 3)), atol=1e-5)
    with torch.no_grad():
        net.places.zero_()
    assert torch.allclose(net(image), net(image.roll(4, 3)), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wide_resnet((3, 32, 32), 10, depth=20), r"depth=20 is not 4 more than a multiple of 6: write 16, 22"),
        (lambda: wide_resnet((3, 32, 32), 10, depth=3), r"depth=3 is not an integer in \[10, 1000\]"),
        (lambda: wide_resnet((3, 32, 32), 10, widen=0.5), r"widen=0\.5 is not an integer in \[1, 100\]"),
        (lambda: vgg16((1, 28, 28), 10), r"images of at least 32x32 pixels"),
        (lambda: vit_tiny((3, 30, 32), 10), r"patch=4 does not divide images of 30x32 pixels: write patch=2"),
        (lambda: vit_tiny((3, 32, 32), 10, layers=0), r"layers=0 is not an integer in \[1, 256\]"),
    ],
)
def test_what_cannot_be_built_is_refused(make, message):
    with pytest.raises(SparsityError, match=message):
        make()


@pytest.mark.parametrize(
    ("choice", "parameters"),
    [
        ("resnet56", of_resnet(9, 100)),
        ("wrn_22_2", of_wide_resnet(22, 2, 100)),
        ("wrn_28_4", of_wide_resnet(28, 4, 100)),
        ("vgg16", of_vgg16(100)),
        ("vit_tiny", of_vit(classes=100)),
        ("torchvision", 11_176_512 + 512 * 100 + 100),  # torchvision's ResNet-18 without its last layer
        ("timm", 11_176_512 + 512 * 100 + 100),
    ],
)
def test_every_choice_builds_it_for_the_data_and_its_optimizer(choice, parameters):
    if choice == "timm":
        pytest.importorskip("timm")
    config = composed(f"model={choice}", "data=cifar10", "data.classes=100")
    with torch.device("meta"):
        model = instantiate(config.model, _convert_="all")
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.net.state_dict().keys()
    optimizer = model._optimizer(model.parameters())
    assert optimizer.param_groups[0]["weight_decay"] > 0


def test_a_network_of_torchvisions_is_one_line_and_named_after_itself():
    found = job("model=torchvision", "model.net._target_=torchvision.models.mobilenet_v3_small")
    assert found.model == "mobilenet_v3_small"
    assert job("model=torchvision").model == job("model=timm").model == "resnet18"
    assert job("model=torchvision").run != job("model=timm").run
    assert job("model=timm", "model.net.model_name=resnet26d").model == "resnet26d"
    net = instantiate(composed("model=torchvision", "data=cifar10").model, _convert_="all").net
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert len(sparsifiable(net)) == 21  # twenty convolutions, three of them 1x1, and a linear layer
