import copy
import io
import pickle

import pytest
import torch
from torch import nn

from lightning_sparse import Static, attach
from lightning_sparse.engine.masks import Masks, load_masks, pack_bits, sparsity_of, unpack_bits
from lightning_sparse.errors import SparsityError


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_apply_zeroes_the_dead_whatever_they_hold_and_leaves_the_rest_bit_for_bit(dtype, compact):
    weight = torch.tensor([1.5, -2.0, torch.nan, -torch.inf, -3.0, 7.0], dtype=dtype)
    masks = Masks.dense({"w": weight}, compact=compact)
    masks.apply({"w": weight})
    assert weight.isnan().any()  # all live, a NaN too
    masks.set("w", torch.tensor([True, False, False, False, True, False]))
    masks.apply({"w": weight})
    assert weight.tolist() == [1.5, 0.0, 0.0, 0.0, -3.0, 0.0]
    assert not torch.signbit(weight[[1, 2, 3, 5]]).any()


@pytest.mark.parametrize("compact", [False, True])
def test_apply_keeps_every_bit_of_the_living(compact):
    bits = torch.randint(-(2**31), 2**31, (1000,), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    mask = torch.rand(1000) < 0.5
    weight = bits.clone().view(torch.float32)  # denormals and NaNs with payloads among them
    masks = Masks({"w": mask}, compact=compact)
    masks.apply({"w": weight})
    assert torch.equal(weight.view(torch.int32), bits * mask)


@pytest.mark.parametrize("compact", [False, True])
def test_apply_follows_any_memory_format(compact):
    weight = torch.randn(8, 3, 5, 5).to(memory_format=torch.channels_last)
    masks = Masks.dense({"w": weight}, compact=compact)
    mask = torch.rand(8, 3, 5, 5) < 0.3
    masks.set("w", mask)
    expected = weight * mask
    masks.apply({"w": weight})
    assert torch.equal(weight, expected)
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_masks_hold_as_many_bytes_as_a_weight_or_one():
    weights = {"w": torch.randn(100), "half": torch.randn(100).half()}
    held = {
        compact: [words.element_size() for words in Masks.dense(weights, compact)._words.values()]
        for compact in (False, True)
    }
    assert held == {False: [4, 2], True: [1, 1]}


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_apply_masks_a_copy_of_another_precision(dtype, compact):
    weight = torch.randn(50)
    masks = Masks.dense({"w": weight}, compact=compact)
    masks.set("w", weight > 0)
    average = weight.to(dtype)
    masks.apply({"w": average})
    assert torch.equal(average, weight.relu().to(dtype))


def test_a_copy_on_another_device_leaves_the_masks_where_they_are():
    weight = torch.randn(50)
    masks = Masks({"w": weight > 0})
    elsewhere = torch.empty(50, device="meta")  # had the masks moved there, nothing would be left of them
    for _ in range(2):
        masks.apply({"w": elsewhere})
        there = masks.pair("w", elsewhere)[1]
        masks.apply({"w": weight})
        assert torch.equal(weight, weight.relu())
        assert masks.pair("w", elsewhere)[1] is there  # moved once, not at every call
    masks.set("w", weight > 1)
    assert masks.pair("w", elsewhere)[1] is not there


def test_a_mask_handed_out_is_not_changed_by_the_next():
    for compact in (False, True):
        masks = Masks({"w": torch.tensor([True, False])}, compact=compact)
        before = masks["w"]
        masks.set("w", torch.tensor([False, True]))
        assert before.tolist() == [True, False]
        given = torch.tensor([True, True])
        masks.set("w", given)
        given[0] = False
        assert masks["w"].tolist() == [True, True]
        assert masks.count("w") == 2


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
    assert same == Masks({"w": mask.clone()}, compact=True).checksum()
    assert same != Masks({"w": flipped}).checksum()
    assert same != Masks({"v": mask}).checksum()


@pytest.mark.parametrize("compact", [False, True])
def test_packing_and_unpacking_masks_loses_nothing(compact):
    masks = Masks({"w": torch.rand(13, 5) < 0.5, "v": torch.rand(9) < 0.5}, {"v": 2}, compact=compact)
    other = Masks.dense({"w": torch.zeros(13, 5), "v": torch.zeros(9).half()}, compact=compact)
    other.unpack(masks.pack())
    assert all(torch.equal(masks[name], other[name]) for name in masks)
    assert masks.living == other.living


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


def test_masks_are_where_their_weights_are_whenever_asked():
    """On a device without data too, to which the weights go and come back: the masks are still what they were."""
    weights = {"some": nn.Parameter(torch.randn(3, 4)), "all": nn.Parameter(torch.randn(2))}
    masks = Masks.dense(weights)
    some = torch.arange(12).view(3, 4) % 3 == 0
    masks.set("some", some)
    for name, weight in weights.items():
        elsewhere = nn.Parameter(torch.empty_like(weight, device="meta"))
        torch.utils.swap_tensors(weight, elsewhere)  # the same parameter, on another device
        assert masks[name].device == weight.device == torch.device("meta")
        assert masks[name].shape == weight.shape
        torch.utils.swap_tensors(weight, elsewhere)
    assert torch.equal(masks["some"], some)
    assert masks["all"].all()
    assert masks.living == 6
    masks.apply(weights)
    assert torch.equal(weights["some"] != 0, some)


def test_a_copy_of_masks_holds_no_weights():
    weights = {"w": nn.Parameter(torch.randn(1000))}
    masks = Masks.dense(weights, compact=True)
    masks.set("w", torch.arange(1000) % 2 == 0)
    for other in (copy.deepcopy(masks), pickle.loads(pickle.dumps(masks))):
        assert other.checksum() == masks.checksum()
        assert torch.equal(other["w"], masks["w"])
    assert len(pickle.dumps(masks)) < 2500


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_masks_follow_their_weights_to_a_gpu_and_back():
    net = nn.Linear(8, 4).cuda()
    engine = attach(torch.optim.SGD(net.parameters(), lr=0.1), net, Static(0.5))
    for device in ("cuda", "cpu", "cuda"):
        net.to(device)
        assert engine.masks["weight"].device.type == device
        assert bool((net.weight[~engine.masks["weight"]] == 0).all())
        assert engine.sparsity == 0.5
