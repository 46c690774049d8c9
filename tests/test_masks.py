import io

import pytest
import torch
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.masks import Masks, load_masks, pack_bits, sparsity_of, unpack_bits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_apply_zeroes_the_dead_whatever_they_hold_and_leaves_the_rest_bit_for_bit(dtype):
    weight = torch.tensor([1.5, -2.0, torch.nan, -torch.inf, -3.0, 7.0], dtype=dtype)
    masks = Masks.dense({"w": weight})
    masks.set("w", torch.tensor([True, False, False, False, True, False]))
    masks.apply({"w": weight})
    assert weight.tolist() == [1.5, 0.0, 0.0, 0.0, -3.0, 0.0]
    assert not torch.signbit(weight[[1, 2, 3, 5]]).any()


def test_apply_follows_any_memory_format():
    weight = torch.randn(8, 3, 5, 5).to(memory_format=torch.channels_last)
    masks = Masks.dense({"w": weight})
    mask = torch.rand(8, 3, 5, 5) < 0.3
    masks.set("w", mask)
    expected = weight * mask
    masks.apply({"w": weight})
    assert torch.equal(weight, expected)
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_counts():
    masks = Masks({"a": torch.tensor([True, False]), "b": torch.zeros(3, dtype=torch.bool)})
    assert (masks.total, masks.living, masks.sparsity) == (5, 1, 0.8)
    assert masks.layer_sparsity() == {"a": 0.5, "b": 1.0}
    assert masks["a"].tolist() == [True, False]


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (9,), (3, 5, 2)])
def test_packing_costs_a_bit_a_weight_and_loses_nothing(shape):
    mask = torch.rand(shape) < 0.5
    packed = pack_bits(mask)
    assert packed["bits"].numel() == -(-mask.numel() // 8)
    assert torch.equal(unpack_bits(packed), mask)


def test_checksum_sees_one_flipped_connection_and_names():
    mask = torch.rand(100) < 0.5
    flipped = mask.clone()
    flipped[42] ^= True
    same = Masks({"w": mask}).checksum()
    assert same == Masks({"w": mask.clone()}).checksum()
    assert same != Masks({"w": flipped}).checksum()
    assert same != Masks({"v": mask}).checksum()


def test_masks_of_another_model_are_refused():
    masks = Masks.dense({"w": torch.zeros(2, 3)})
    with pytest.raises(SparsityError, match=r"'w' has shape \[3, 2\] there and \[2, 3\] here"):
        masks.unpack(Masks.dense({"w": torch.zeros(3, 2)}).pack())


def test_load_masks_reads_a_checkpoint_with_weights_only():
    masks = Masks({"w": torch.tensor([True, False, False])})
    file = io.BytesIO()
    torch.save({"callbacks": {"lightning_sparse[]": {"lightning_sparse": 1, "masks": masks.pack()}}}, file)
    file.seek(0)
    assert load_masks(torch.load(file, weights_only=True))["w"].tolist() == [True, False, False]


def test_a_checkpoint_without_masks_says_so():
    with pytest.raises(SparsityError, match="holds no masks"):
        load_masks({"state_dict": {}, "callbacks": {"EarlyStopping": {}}})


def test_sparsity_of_counts_zeros_of_weights_only():
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))
    nn.init.zeros_(net[0].bias)
    nn.init.zeros_(net[1].weight)
    net[0].weight.data[:2] = 0
    assert sparsity_of(net) == 8 / 25
