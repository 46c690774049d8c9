"""Storage formats: every buffer decodes back to the weights, bit for bit; sizes by hand, by scipy and by torch."""

import lzma
import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import nn

from lightning_sparse.anatomy.living import living_of, rest_of
from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.compress.codecs import (
    as_matrix,
    from_bitmap,
    from_csr,
    from_entropy,
    to_bitmap,
    to_csr,
    to_entropy,
)
from lightning_sparse.engine.masks import Masks
from lightning_sparse.measure.description.storage import storage_formats


def sparse_net(density, seed=0):
    """Layers of 1-d, 2-d, 4-d and 3-d weights, a BatchNorm, and as many living connections as asked for in each."""
    generator = torch.Generator().manual_seed(seed)
    layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv1d(16, 7, 5), nn.Linear(301, 97), nn.Linear(97, 1)]
    net = nn.Sequential(*layers)
    masks = {}
    for name, weight in sparsifiable(net).items():
        order = torch.rand(weight.numel(), generator=generator).argsort()
        masks[name] = (order < round(density * weight.numel())).view(weight.shape)
        weight.data.copy_(torch.randn(weight.shape, generator=generator).where(masks[name], torch.tensor(0.0)))
    return net, masks


def bits(weight):
    return np.ascontiguousarray(weight).view(np.uint32)


def sizes(measured):
    return {row.metric.removeprefix("cost_bytes_"): row.value for row in measured.records}


@pytest.mark.parametrize("density", [0.0, 0.003, 0.05, 0.12, 0.5, 1.0])
def test_every_format_decodes_to_the_same_weights_and_is_counted_whole(density):
    net, masks = sparse_net(density)
    layers = [(as_matrix(weight), as_matrix(alive)) for weight, alive in living_of(net, masks).values()]
    weights = [weight.detach().numpy().reshape(len(weight), -1) for weight in sparsifiable(net).values()]
    shapes = [weight.shape for weight in weights]
    counted = {"dense": sum(weight.nbytes for weight in weights), "bitmap": 0, "csr": 0}
    for (weight, alive), expected in zip(layers, weights, strict=True):
        bitmap, csr = to_bitmap(weight, alive), to_csr(weight, alive)
        assert (bits(from_bitmap(*bitmap, weight.shape)) == bits(expected)).all()
        assert (bits(from_csr(*csr, weight.shape)) == bits(expected)).all()
        counted["bitmap"] += sum(len(part.tobytes()) for part in bitmap)
        counted["csr"] += sum(len(part.tobytes()) for part in csr)
    content = to_entropy(layers)
    assert isinstance(content, bytes)
    for decoded, expected in zip(from_entropy(content, shapes), weights, strict=True):
        assert (bits(decoded) == bits(expected)).all()
    counted["entropy"] = len(content)
    # 16 + 7 + 97 + 1 biases, 4 x 16 of the BatchNorm in float32, and its counter in int64
    rest = 4 * (121 + 64) + 8
    found = sizes(storage_formats(net, masks))
    assert {name: size - rest for name, size in found.items() if name != "torch_csr"} == counted


def test_sizes_by_hand():
    net = nn.Conv2d(2, 3, 2)  # 24 weights in rows of 8, 3 biases
    weight = torch.zeros(3, 2, 2, 2)
    weight[0, 1, 0, 1], weight[2, 0, 0, 0], weight[2, 1, 1, 1] = 1.5, -2.0, 0.25
    net.weight.data.copy_(weight)
    found = sizes(storage_formats(net))
    assert found["dense"] == 4 * 24 + 12
    assert found["bitmap"] == 3 + 3 * 4 + 12  # 24 bits
    assert found["csr"] == (3 + 1) * 4 + 3 * (4 + 4) + 12
    assert found["torch_csr"] == (3 + 1) * 8 + 3 * (8 + 4) + 12
    bitmap = to_bitmap(as_matrix(net.weight), as_matrix(weight != 0))
    assert bitmap[0].tolist() == [0b00000100, 0, 0b10000001]  # row 0 column 5; row 2 columns 0 and 7
    ends, columns, values = to_csr(as_matrix(net.weight), as_matrix(weight != 0))
    assert (ends.tolist(), columns.tolist(), values.tolist()) == ([0, 1, 1, 3], [5, 0, 7], [1.5, -2.0, 0.25])


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_rows_are_those_of_scipy_and_torch():
    net, masks = sparse_net(0.2)
    weight = as_matrix(net[3].weight)
    ends, columns, values = to_csr(weight, as_matrix(masks["3.weight"]))
    scipy = csr_array(weight)
    assert (ends == scipy.indptr).all()
    assert (columns == scipy.indices).all()
    assert (values == scipy.data).all()
    assert (ends.dtype, columns.dtype) == (scipy.indptr.dtype, scipy.indices.dtype)
    alone = nn.Linear(301, 97, bias=False)
    alone.weight.data.copy_(net[3].weight)
    torchs = alone.weight.detach().to_sparse_csr()
    parts = (torchs.crow_indices(), torchs.col_indices(), torchs.values())
    assert sizes(storage_formats(alone))["torch_csr"] == sum(part.numel() * part.element_size() for part in parts)


def test_where_the_formats_cross():
    """Bitmap beats dense below 1 - 1/32, CSR below about 1/2, torch's CSR below about 1/3 (notes, section 4)."""
    three = {"bitmap", "csr", "torch_csr"}
    for density, smaller in [(1.0, set()), (0.95, {"bitmap"}), (0.4, {"bitmap", "csr"}), (0.3, three)]:
        net = nn.Linear(1000, 200, bias=False)
        net.weight.data[torch.rand(net.weight.shape, generator=torch.Generator().manual_seed(0)) >= density] = 0
        found = sizes(storage_formats(net))
        assert {name for name in three if found[name] < found["dense"]} == smaller
        assert found["entropy"] < found["bitmap"]


@pytest.mark.parametrize("density", [0.5, 0.1, 0.02])
def test_the_compressed_mask_comes_near_its_entropy_and_not_below_it(density):
    n, generator = 200_000, np.random.default_rng(0)
    alive = generator.permutation(n).reshape(1, n) < round(density * n)
    ideal = (
        (math.lgamma(n + 1) - sum(math.lgamma(part + 1) for part in (alive.sum(), n - alive.sum()))) / math.log(2) / 8
    )
    one = np.ones((1, n), dtype=np.float32)  # values that cost next to nothing
    size = len(to_entropy([(one, alive)]))
    assert ideal < size < 1.08 * ideal + 600


def test_without_masks_zeros_are_dead_and_with_them_a_living_zero_is_stored():
    net = nn.Linear(4, 2, bias=False)
    net.weight.data.copy_(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]]))
    masks = Masks({"weight": torch.tensor([[True, True, False, False]] * 2)})
    assert sizes(storage_formats(net))["bitmap"] == 1 + 2 * 4
    assert sizes(storage_formats(net, masks))["bitmap"] == 1 + 4 * 4
    assert sizes(storage_formats(net, masks))["torch_csr"] == 3 * 8 + 4 * 12


def test_a_tied_tensor_is_stored_once_and_a_buffer_outside_the_checkpoint_not_at_all():
    net = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5))
    net[1].weight, net[2].bias = net[0].weight, net[0].bias
    net[0].register_buffer("saved", torch.zeros(3))
    net[0].register_buffer("unsaved", torch.zeros(7), persistent=False)
    assert list(living_of(net)) == ["0.weight", "2.weight"]
    assert sorted(len(tensor) for tensor in rest_of(net, living_of(net))) == [3, 5, 5]
    assert sizes(storage_formats(net))["dense"] == 4 * (25 + 25 + 13)


def test_half_precision_is_stored_exactly():
    for kind in (torch.float16, torch.bfloat16):
        weight = torch.randn(6, 5).to(kind)
        assert torch.equal(torch.from_numpy(as_matrix(weight)).to(kind), weight)


def test_lzma_alone_is_no_smaller(digits):
    """The upper bound that needs no format of ours: the dense bytes through lzma."""
    found = sizes(storage_formats(digits.model))
    dense = b"".join(tensor.numpy().tobytes() for tensor in digits.model.state_dict().values())
    assert found["entropy"] < len(lzma.compress(dense)) < found["dense"]
