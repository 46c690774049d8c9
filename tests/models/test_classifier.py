import hashlib

import pytest
import torch

from lightning_sparse import SparsityError, sparsifiable
from lightning_sparse.models.classifier import Classifier
from lightning_sparse.models.networks import (
    lenet5,
    lenet5_caffe,
    lenet_300_100,
    resnet18,
    resnet20,
    small_cnn,
    strided_cnn,
)
from lightning_sparse.models.row_gru import row_gru


@pytest.mark.parametrize(
    ("make", "shape", "weights"),
    [
        (lenet_300_100, (1, 28, 28), 784 * 300 + 300 * 100 + 100 * 10),
        (lenet_300_100, (1, 8, 8), 64 * 300 + 300 * 100 + 100 * 10),
        (lenet5, (1, 28, 28), 61_470),
        (lenet5_caffe, (1, 28, 28), 430_500),
        (small_cnn, (1, 28, 28), 9 * 32 + 9 * 32 * 64 + 64 * 49 * 128 + 128 * 10),
        (row_gru, (1, 28, 28), 384 * 28 + 384 * 128 + 128 * 10),
        # He et al. 2016: 0.27 M; the shortcuts here are 1x1 convolutions (2,560 weights).
        (resnet20, (3, 32, 32), 432 + 6 * 2304 + 4608 + 5 * 9216 + 18432 + 5 * 36864 + 512 + 2048 + 640),
        (resnet18, (3, 32, 32), 11_164_352),
    ],
)
def test_networks_have_the_weights_of_their_papers_and_give_logits(make, shape, weights):
    net = make(shape, 10)
    assert sum(weight.numel() for weight in sparsifiable(net).values()) == weights
    assert net(torch.rand(2, *shape)).shape == (2, 10)


def test_normalisation_is_in_the_model():
    model = Classifier(torch.nn.Flatten(), mean=[0.5, 0.1], std=[0.25, 0.5])
    images = torch.rand(3, 2, 2, 2)
    expected = (images - torch.tensor([0.5, 0.1]).view(2, 1, 1)) / torch.tensor([0.25, 0.5]).view(2, 1, 1)
    assert torch.allclose(model(images), expected.flatten(1))


def test_an_unknown_schedule_is_refused():
    with pytest.raises(SparsityError, match="did you mean 'cosine'"):
        Classifier(torch.nn.Flatten(), mean=[0.5], std=[0.5], schedule="cosin")


NETS = [
    (lenet_300_100, (1, 28, 28)),
    (lenet5, (1, 28, 28)),
    (small_cnn, (1, 8, 8)),
    (resnet20, (3, 32, 32)),
    (resnet18, (3, 32, 32)),
]


def weights_of(net):
    return sum(weight.numel() for weight in sparsifiable(net).values())


def initial(net):
    content = b"".join(name.encode() + tensor.numpy().tobytes() for name, tensor in net.state_dict().items())
    return hashlib.sha256(content).hexdigest()[:16]


@pytest.mark.parametrize(
    ("make", "digest"),
    [
        (lenet_300_100, "411494e1327585f8"),
        (lenet5, "772ffd88f930afb9"),
        (small_cnn, "d408f341dd2d4528"),
        (resnet20, "fada5c409ed88da1"),
        (resnet18, "dba9e5f669845aa4"),
    ],
)
def test_at_width_1_initial_weights_are_what_they_have_always_been(make, digest):
    """Digests of the networks before they had a width; those of another torch would be others, so twins are compared too."""
    nets = []
    for arguments in ((), (1.0,), (1,)):
        torch.manual_seed(3)
        nets.append(initial(make((3, 32, 32), 10, *arguments)))
    assert len(set(nets)) == 1
    torch.manual_seed(3)
    if initial(torch.nn.Linear(4, 4)) == TORCHS_OWN:
        assert nets[0] == digest


@pytest.mark.parametrize(("make", "shape"), NETS)
@pytest.mark.parametrize("width", [0.01, 0.3, 0.5, 1.5])
def test_any_width_gives_logits_and_trains(make, shape, width):
    if make is resnet18 and width > 1:
        width = 1.1  # 11 M weights are enough
    net = make(shape, 10, width)
    net(torch.rand(2, *shape)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert (weights_of(net) > weights_of(make(shape, 10))) == (width > 1)


def test_width_by_hand():
    assert weights_of(lenet_300_100((1, 28, 28), 10, 0.5)) == 784 * 150 + 150 * 50 + 50 * 10
    assert weights_of(lenet5((1, 28, 28), 10, 0.5)) == 25 * 3 + 25 * 3 * 8 + 200 * 60 + 60 * 42 + 42 * 10
    assert weights_of(small_cnn((1, 8, 8), 10, 0.25)) == 9 * 8 + 9 * 8 * 16 + 16 * 4 * 32 + 32 * 10
    # A quarter: 4, 8 and 16 channels, so all but the first and the last layer have a sixteenth.
    assert weights_of(resnet20((3, 32, 32), 10, 0.25)) == 27 * 4 + (270_896 - 432 - 640) // 16 + 16 * 10
    assert weights_of(resnet18((3, 32, 32), 10, 0.25)) == 27 * 16 + (11_164_352 - 1728 - 5120) // 16 + 128 * 10
    assert weights_of(lenet_300_100((1, 28, 28), 10, 1e-6)) == 784 + 1 + 10


def test_a_narrow_resnet18_starts_as_torchvisions_does():
    """He et al.'s initial weights: of variance 2 / (fan-out), with BatchNorm at 1 and 0."""
    torch.manual_seed(0)
    net = resnet18((3, 32, 32), 10, 0.5)
    for name, channels in (("layer1.0.conv1", 32), ("layer4.1.conv2", 256)):
        assert float(net.get_parameter(f"{name}.weight").detach().std()) == pytest.approx(
            (2 / (9 * channels)) ** 0.5, rel=0.05
        )
    assert net.layer3[0].bn2.weight.min().item() == net.bn1.weight.max().item() == 1.0
    assert [name for name, _ in net.named_parameters()] == [
        name for name, _ in resnet18((3, 32, 32), 10).named_parameters()
    ]


@pytest.mark.parametrize("width", [0, -1, True, "half", float("nan"), float("inf")])
def test_anything_but_a_width_is_refused(width):
    with pytest.raises(SparsityError, match=r"width=.* is not a factor above 0: write 0\.5"):
        small_cnn((1, 8, 8), 10, width)


@pytest.mark.parametrize(("make", "shape"), NETS)
def test_anything_but_the_shape_of_an_image_is_refused(make, shape):
    for wrong in (shape[1:], (*shape, 1), (0, 32, 32), "1x28x28", 28):
        with pytest.raises(SparsityError, match=r"shape=.* is not \(channels, height, width\)"):
            make(wrong, 10)


def test_images_smaller_than_a_network_can_pool_are_refused():
    with pytest.raises(SparsityError, match=r"shape=\(1, 8, 8\) .* of at least 12x12 pixels"):
        lenet5((1, 8, 8), 10)
    assert lenet5((1, 12, 12), 10)(torch.rand(2, 1, 12, 12)).shape == (2, 10)


# What torch 2.15 draws for a layer after manual_seed(3).
TORCHS_OWN = "67a6d961cbc68538"


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 7, 10), (1, 5, 15), (1, 4, 6)])
def test_stride_in_place_of_pooling_keeps_every_parameter_and_its_shape(shape):
    pooled, strided = small_cnn(shape, 10), strided_cnn(shape, 10)
    assert [tuple(p.shape) for p in pooled.parameters()] == [tuple(p.shape) for p in strided.parameters()]
    assert strided(torch.rand(2, *shape)).shape == (2, 10)


def test_the_gru_over_rows_is_torchs():
    torch.manual_seed(0)
    net, images = row_gru((2, 5, 4), 3, 0.1), torch.rand(6, 2, 5, 4)
    torchs = torch.nn.GRU(8, net.hidden, batch_first=True)
    for name, layer in (("ih", net.rows), ("hh", net.state)):
        torchs.get_parameter(f"weight_{name}_l0").data = layer.weight.data
        torchs.get_parameter(f"bias_{name}_l0").data = layer.bias.data
    rows = torch.stack([images[:, :, row].flatten(1) for row in range(5)], 1)
    assert torch.allclose(net(images), net.head(torchs(rows)[0][:, -1]), atol=1e-6)
