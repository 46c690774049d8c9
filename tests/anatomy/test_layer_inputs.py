"""The inputs of a layer, times its weight, are what the layer gives: whichever module or function multiplies them."""

import pytest
import torch
from torch import nn

from lightning_sparse import sparsifiable
from lightning_sparse.anatomy.layer_inputs import LayerInputs, as_matrix, as_weight


def seen(call, weights, *inputs):
    """Name, rows and the whole matrix of inputs of each product."""
    found = []

    def see(product):
        found.append((product.name, product.rows, torch.cat(list(product.matrices()))))

    with torch.no_grad(), LayerInputs(weights, see):
        call(*inputs)
    return found


CONVOLUTIONS = {
    "1d": (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    "2d": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), dilation=(2, 1), padding=(2, 0)), (2, 4, 9, 11)),
    "3d": (nn.Conv3d(2, 6, (2, 3, 1), stride=2), (2, 2, 5, 6, 7)),
    "groups": (nn.Conv2d(4, 6, 3, groups=2), (3, 4, 7, 6)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding="same"), (3, 4, 7, 6)),
    "circular": (nn.Conv2d(4, 6, 3, padding=2, padding_mode="circular"), (2, 4, 5, 6)),
    "one image": (nn.Conv2d(4, 6, 3, padding="same", dilation=2), (4, 9, 11)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_patches_times_the_matrix_of_the_weight_are_a_convolution(kind, monkeypatch):
    monkeypatch.setattr("lightning_sparse.anatomy.layer_inputs._LARGEST", 900)  # several pieces
    layer, shape = CONVOLUTIONS[kind]
    given = torch.rand(shape)
    weight = as_matrix(layer.weight.detach())
    assert torch.equal(as_weight(weight, layer.weight.shape), layer.weight)
    parts = [matrix @ weight[slice(*rows)].T for _, rows, matrix in seen(layer, {"w": layer.weight}, given)]
    output = layer(given).detach().view(-1, layer.out_channels, *layer(given).shape[-(len(layer.kernel_size)) :])
    expected = (output - layer.bias.detach().view(-1, *[1] * len(layer.kernel_size))).movedim(1, -1).flatten(0, -2)
    assert len(parts) == layer.groups
    torch.testing.assert_close(torch.cat(parts, 1), expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 2, 3, 5)])
def test_a_linear_layer_has_a_row_for_every_token(shape, bias):
    layer, given = nn.Linear(5, 4, bias=bias), torch.rand(shape)
    for laid_out in (given, given.mT.contiguous().mT if given.dim() > 1 else given):
        [(name, rows, matrix)] = seen(layer, {"w": layer.weight}, laid_out)
        assert (name, rows) == ("w", (0, 4))
        assert torch.equal(matrix, given.reshape(-1, 5))


def test_other_ways_to_write_the_same_product():
    weight, given = nn.Parameter(torch.rand(4, 5)), torch.rand(2, 3, 5)
    expected = given.reshape(-1, 5)
    for call in (
        lambda x: x @ weight.T,
        lambda x: torch.einsum("bti,oi->bto", x, weight),
        lambda x: weight @ x.reshape(-1, 5).T,
        lambda x: torch.bmm(x, weight.T.expand(2, 5, 4)),
    ):
        [(_, rows, matrix)] = seen(call, {"w": weight}, given)
        assert rows == (0, 4)
        assert torch.equal(matrix, expected)


def test_what_is_another_product_is_not_seen():
    weight = nn.Parameter(torch.rand(4, 4))
    for call in (
        lambda x: x @ weight,  # along its other dimension
        lambda x: x @ (2 * weight).T,
        lambda x: x[:, :2] @ weight[:, :2].T,
        lambda x: x * weight[0],
    ):
        assert seen(call, {"w": weight}, torch.rand(3, 4)) == []
    for layer, given in (
        (nn.ConvTranspose1d(4, 6, 3), torch.rand(2, 4, 5)),
        (nn.LSTM(4, 6), torch.rand(2, 3, 4)),
        (nn.Embedding(3, 4), torch.tensor([1])),
    ):
        assert seen(layer, dict(layer.named_parameters()), given) == []


@pytest.mark.parametrize("training", [True, False])
def test_the_projections_inside_attention(training):
    torch.manual_seed(0)
    x, y, z = torch.rand(2, 5, 8), torch.rand(2, 3, 8), torch.rand(2, 3, 8)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).train(training)
    weights = dict(attention.named_parameters())
    flat = [each.transpose(0, 1).reshape(-1, 8) for each in (x, y, z)]  # attention has the tokens in front
    for given, expected in {
        (x, x, x): [((0, 24), 0)],
        (x, y, y): [((0, 8), 0), ((8, 24), 1)],
        (x, y, z): [((0, 8), 0), ((8, 16), 1), ((16, 24), 2)],
    }.items():
        *projections, (name, rows, _) = seen(attention, weights, *given)
        assert (name, rows) == ("out_proj.weight", (0, 8))
        for (name, rows, matrix), (theirs, which) in zip(projections, expected, strict=True):
            assert (name, rows) == ("in_proj_weight", theirs)
            assert torch.equal(matrix.sort(0)[0], flat[which].sort(0)[0])


def test_a_conv1d_of_transformers_is_seen_by_its_transpose():
    layer = pytest.importorskip("transformers.pytorch_utils").Conv1D(4, 4)
    given = torch.rand(2, 3, 4)
    [(_, rows, matrix)] = seen(layer, sparsifiable(layer), given)
    assert rows == (0, 4)
    assert torch.equal(matrix, given.reshape(-1, 4))
