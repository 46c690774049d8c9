"""Packed files: equal to the bit, refused when anything is wrong, and as small as the entropy allows."""

import hashlib
import json
import math
import pickle
import random
import struct
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_sparse import GradualPruning, Masks, SparsityError
from lightning_sparse.compress.quantise import quantise
from lightning_sparse.export import load_packed, packed_table, save_packed
from lightning_sparse.compress.entropy_coder import decode_mask, decode_words, encode_mask, encode_words, turn
from lightning_sparse.export.packed_file import FORMAT, read_packed
from lightning_sparse.models import Classifier, lenet_300_100, resnet20

BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


class Mixed(nn.Module):
    """Layers, norms and buffers of many types, some tied, some empty; any of the layers may be missing."""

    def __init__(self, seed, dtype):
        super().__init__()
        choose = random.Random(seed)
        width = choose.randint(1, 40)
        for name, make in {
            "linear": lambda: nn.Linear(width, choose.randint(1, 60)),
            "conv": lambda: nn.Conv2d(choose.randint(1, 8), 2 * width, choose.randint(1, 3), bias=False),
            "grouped": lambda: nn.ConvTranspose1d(2 * width, 2 * width, 3, groups=2),
            "norm": lambda: nn.BatchNorm2d(width),
            "lstm": lambda: nn.LSTM(3, choose.randint(1, 9)),
            "embedding": lambda: nn.Embedding(20, width),
        }.items():
            if choose.random() < 0.7:
                setattr(self, name, make())
        if hasattr(self, "embedding"):
            self.head = nn.Linear(width, 20)
            self.head.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.tensor(choose.choice([0.0, math.nan, math.inf, -0.0, 1e-42])))
        self.to(dtype)
        for kind in (
            torch.bool,
            torch.uint8,
            torch.int16,
            torch.int64,
            torch.complex64,
            torch.float64,
            torch.float8_e5m2,
        ):
            self.register_buffer(str(kind)[6:], (100 * torch.randn(choose.randint(0, 3), 5)).to(kind))
        self.none = nn.Parameter(torch.zeros(0, 3))
        self.register_buffer("left_out", torch.randn(3), persistent=False)


def mixed(seed, dtype=torch.float32):
    torch.manual_seed(seed)
    return Mixed(seed, dtype)


def masks_of(model, seed, include=()):
    """Random masks of the weights of layers and of others that are named, applied."""
    torch.manual_seed(seed)
    found = {}
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and (name.startswith(("linear", "conv", "grouped")) or name in include):
            density = random.Random(seed).choice([0.0, 0.02, 0.3, 0.95, 1.0])
            found[name] = torch.rand(weight.shape) < density
            weight.data[~found[name]] = 0
    return found


def bits(model):
    return {name: t.contiguous().reshape(-1).view(BITS[t.element_size()]) for name, t in model.state_dict().items()}


def same_bits(one, two):
    a, b = bits(one), bits(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def tiny():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    model[0].weight.data[torch.rand(5, 6) < 0.6] = 0
    return model


@pytest.mark.parametrize("seed", range(60))
def test_a_loaded_network_is_equal_to_the_bit(tmp_path, seed):
    dtype = DTYPES[seed % 4]
    model, again = mixed(seed, dtype), mixed(seed, dtype)
    masks = masks_of(model, seed, include=("lstm.weight_hh_l0", "embedding.weight"))
    if seed % 3 == 0 or not masks:
        masks = None
    save_packed(model, masks, tmp_path / "net.packed")
    for tensor in again.state_dict().values():
        tensor.zero_()
    found = load_packed(tmp_path / "net.packed", again)
    assert same_bits(model, again)
    assert isinstance(found, Masks)
    for name, mask in (masks or {}).items():
        assert torch.equal(found[name], mask)
    found.apply({name: again.get_parameter(name) for name in found})
    assert same_bits(model, again)


@pytest.mark.parametrize("values", ["bfloat16", "int8", "int5", "int4", "int3", "int2"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_loaded_network_is_the_rounded_one(tmp_path, values, dtype):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(30, 7)).to(dtype)
    for name in ("0.weight", "3.weight"):
        weight = model.get_parameter(name)
        weight.data[torch.rand(weight.shape) < 0.7] = 0
    model[1].running_var.uniform_(1e-6, 1e4 if dtype != torch.float16 else 100)
    save_packed(model, None, tmp_path / "net.packed", values=values)
    again = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(30, 7)).to(dtype)
    load_packed(tmp_path / "net.packed", again)
    for name, before in model.state_dict().items():
        after = again.state_dict()[name]
        if name in ("0.weight", "3.weight") and values != "bfloat16":
            living = before[before != 0].double().numpy()
            levels = np.linspace(living.min(), living.max(), 2 ** int(values[3:]))
            there = after[before != 0]
            assert torch.equal(there, torch.tensor(quantise(living, int(values[3:]))[1]).to(dtype))
            half = (levels[1] - levels[0]) / 2
            eps = float(torch.finfo(dtype).eps) * np.abs(living).max()
            found, half = there.double().numpy(), (levels[1] - levels[0]) / 2
            assert np.abs(found[:, None] - levels).min(axis=1).max() <= eps
            assert np.abs(found - living).max() <= half + eps
            assert not after[before == 0].any()
        elif before.is_floating_point() and before.element_size() > 2:
            assert torch.equal(after, before.bfloat16().to(dtype))
        else:
            assert torch.equal(after, before)


def test_a_dead_minus_zero_comes_back_as_zero_and_others_as_they_were(tmp_path):
    model = nn.Linear(3, 1)
    model.weight.data.copy_(torch.tensor([[-0.0, 2.0, 0.0]]))
    model.bias.data.fill_(-0.0)
    save_packed(model, {"weight": torch.tensor([[False, True, True]])}, tmp_path / "net.packed")
    masks = load_packed(tmp_path / "net.packed", again := nn.Linear(3, 1))
    assert torch.equal(torch.signbit(again.weight), torch.tensor([[False, False, False]]))
    assert torch.signbit(again.bias).all()
    assert masks["weight"].tolist() == [[False, True, True]]


def test_nothing_is_touched_but_the_values(tmp_path):
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout())
    model[1].eval()
    model(torch.rand(4, 6)).sum().backward()
    model[0].bias.requires_grad_(False)
    state, gradient, place = torch.get_rng_state(), model[0].weight.grad.clone(), model[0].weight.data_ptr()
    save_packed(model, None, tmp_path / "net.packed")
    load_packed(tmp_path / "net.packed", model)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model[0].weight.grad, gradient)
    assert model[0].weight.data_ptr() == place
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert not model[0].bias.requires_grad


def test_frozen_layers_are_sparse_too(tmp_path):
    model = tiny().requires_grad_(False).eval()
    save_packed(model, None, tmp_path / "net.packed")
    assert torch.equal(load_packed(tmp_path / "net.packed", tiny())["0.weight"], model[0].weight != 0)


def test_tied_weights_are_stored_once_and_must_be_tied_alike(tmp_path):
    def net(tied):
        model = nn.Sequential(nn.Embedding(50, 40), nn.Linear(40, 50, bias=False))
        if tied:
            model[1].weight = model[0].weight
        return model

    save_packed(net(True), None, tmp_path / "tied")
    save_packed(net(False), None, tmp_path / "loose")
    assert (tmp_path / "tied").stat().st_size < 0.6 * (tmp_path / "loose").stat().st_size
    load_packed(tmp_path / "tied", loose := net(False))
    assert torch.equal(loose[0].weight, loose[1].weight)
    with pytest.raises(SparsityError, match=r"'1.weight' and '0.weight' are one tensor in the model"):
        load_packed(tmp_path / "loose", net(True))


def test_reading_runs_no_pickle(tmp_path, monkeypatch):
    save_packed(tiny(), None, tmp_path / "net.packed")
    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.delattr(module, name)
    load_packed(tmp_path / "net.packed", tiny())


@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF])
def test_every_damaged_byte_is_refused_and_the_model_left_alone(tmp_path, change):
    save_packed(tiny(), None, tmp_path / "whole")
    content, model, path = (tmp_path / "whole").read_bytes(), tiny(), tmp_path / "net.packed"
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ change]) + content[place + 1 :])
        with pytest.raises(SparsityError, match=r"no packed file|truncated or damaged|has format"):
            load_packed(path, model)
        with pytest.raises(SparsityError):
            packed_table(path)
    assert same_bits(model, tiny())


def test_every_truncation_and_any_addition_is_refused(tmp_path):
    save_packed(tiny(), None, tmp_path / "whole")
    content, path = (tmp_path / "whole").read_bytes(), tmp_path / "net.packed"
    for damaged in [*(content[:length] for length in range(len(content))), content + b"\0", content * 2]:
        path.write_bytes(damaged)
        with pytest.raises(SparsityError, match=r"no packed file|truncated or damaged"):
            load_packed(path, tiny())


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"PK\x03\x04" + bytes(99), b"\x80\x02}q\x00.", bytes(500)]
)
def test_foreign_files_are_refused(tmp_path, content):
    (tmp_path / "net.packed").write_bytes(content)
    with pytest.raises(SparsityError, match="is no packed file: give one that save_packed wrote"):
        load_packed(tmp_path / "net.packed", tiny())


def forged(path, change, streams=None, version=FORMAT, raw=None):
    """Write a file again with another header and a right checksum, as nobody does by accident."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 41)
    header = json.loads(zlib.decompress(content[45 : 45 + length]))
    change(header)
    packed = zlib.compress(json.dumps(header).encode()) if raw is None else raw
    rest = struct.pack("<I", len(packed)) + packed + (content[45 + length :] if streams is None else streams)
    digest = hashlib.sha256(bytes([version]) + rest).digest()
    path.write_bytes(content[:8] + bytes([version]) + digest + rest)


def test_a_newer_format_is_named_with_what_to_do(tmp_path):
    save_packed(tiny(), None, tmp_path / "net.packed")
    forged(tmp_path / "net.packed", lambda header: None, version=FORMAT + 1)
    with pytest.raises(
        SparsityError, match=rf"format {FORMAT + 1}, .* reads format {FORMAT}: write pip install --upgrade"
    ):
        load_packed(tmp_path / "net.packed", tiny())


FORGERIES = {
    "huge shape": lambda h: h["parts"][0].update(shapes=[[10**9, 10**9]]),
    "huge living": lambda h: h["parts"][0].update(living=10**15),
    "other living": lambda h: h["parts"][0].update(living=h["parts"][0]["living"] + 1),
    "negative size": lambda h: h["parts"][0].update(shapes=[[-5, -6]]),
    "size of a float": lambda h: h["parts"][0].update(shapes=[[5.0, 6.0]]),
    "negative bytes": lambda h: h["parts"][0].update(bytes=[-4, 4]),
    "other bytes": lambda h: h["parts"][0].update(bytes=[3, h["parts"][0]["bytes"][1]]),
    "moved bytes": lambda h: h["parts"][0].update(bytes=[0, sum(h["parts"][0]["bytes"])]),
    "other code": lambda h: h["parts"][0].update(coded="int3"),
    "no code": lambda h: h["parts"][0].update(coded="pickle"),
    "huge code": lambda h: h["parts"][0].update(coded="int9999999999"),
    "no names": lambda h: h["parts"][0].update(names=[], shapes=[]),
    "a name twice": lambda h: h["parts"].append(h["parts"][0] | {"bytes": [0, 0]}),
    "another name of none": lambda h: h.update(same={"a": "b"}),
    "another name of a list": lambda h: h.update(same={"a": []}),
    "a part of a list": lambda h: h.update(parts=[[]]),
    "parts of a number": lambda h: h.update(parts=3),
    "new field": lambda h: h["parts"][0].update(more=1),
    "no check": lambda h: h.pop("check"),
    "other check": lambda h: h.update(check=1),
    "two sparse in one": lambda h: h["parts"][1].update(sparse=True),
    "sparse by a word": lambda h: h["parts"][0].update(sparse="yes"),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_a_forged_header_is_refused_without_a_huge_allocation(tmp_path, how):
    save_packed(tiny(), None, tmp_path / "net.packed")
    forged(tmp_path / "net.packed", FORGERIES[how])
    tracemalloc.start()
    try:
        with pytest.raises(SparsityError):
            load_packed(tmp_path / "net.packed", tiny())
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "raw", [b"", b"x", zlib.compress(b"["), zlib.compress(b"[" * 10**5), zlib.compress(bytes(2**27))]
)
def test_a_header_of_something_else_is_refused(tmp_path, raw):
    save_packed(tiny(), None, tmp_path / "net.packed")
    forged(tmp_path / "net.packed", lambda header: None, raw=raw)
    with pytest.raises(SparsityError, match="damaged"):
        packed_table(tmp_path / "net.packed")


def test_other_streams_are_refused(tmp_path):
    model, path = tiny(), tmp_path / "net.packed"
    save_packed(model, None, path)
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 41)
    streams, choose = content[45 + length :], random.Random(0)
    for _ in range(200):
        forged(path, lambda header: None, streams=choose.randbytes(len(streams)))
        with pytest.raises(SparsityError, match="cannot be decoded"):
            load_packed(path, model)
    assert same_bits(model, tiny())


def test_another_architecture_is_refused_by_name(tmp_path):
    save_packed(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)), None, path := tmp_path / "net.packed")
    with pytest.raises(SparsityError, match=r"another architecture: '1.weight' is in the file and not in the model"):
        load_packed(path, nn.Sequential(nn.Linear(6, 5)))
    with pytest.raises(SparsityError, match=r"another architecture: '2.weight' is in the model and not in the file"):
        load_packed(path, nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(3, 3)))
    with pytest.raises(SparsityError, match=r"another architecture: '0.weight' has shape \[5, 6\] .* and \[5, 4\]"):
        load_packed(path, nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)))
    with pytest.raises(SparsityError, match=r"another architecture: '0.weight' has shape \[5, 6\] .* and \[4, 6\]"):
        load_packed(path, nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)))


def test_a_narrower_network_makes_the_model_as_narrow(tmp_path):
    small, model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)), nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 3))
    save_packed(small, None, path := tmp_path / "net.packed")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(SparsityError):
        load_packed(path, model)
    assert model[0].weight.shape == (9, 6)  # as it was
    path.write_bytes(whole)
    load_packed(path, model)
    assert same_bits(model, small)
    assert (model[0].out_features, model[1].in_features) == (5, 5)


def test_another_type_is_refused_and_the_advice_works(tmp_path):
    save_packed(nn.Linear(6, 5).double(), None, path := tmp_path / "net.packed")
    model = nn.Linear(6, 5)
    with pytest.raises(
        SparsityError, match=r"'weight' in float64, and the model in float32: write (.*) first"
    ) as error:
        load_packed(path, model)
    exec(str(error.value).partition("write ")[2].removesuffix(" first"), {"model": model, "torch": torch})
    load_packed(path, model)


class WithExtraState(nn.Linear):
    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        pass


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (WithExtraState(2, 2), "'_extra_state' .* is a dict, no tensor"),
        (nn.Linear(2, 2, device="meta"), "on the device meta"),
        (nn.LazyLinear(2), "run one batch through the model first"),
        (nn.Linear(2, 2).weight, "not a torch.nn.Module"),
    ],
)
def test_what_cannot_be_stored_is_refused(tmp_path, model, says):
    with pytest.raises(SparsityError, match=says):
        save_packed(model, None, tmp_path / "net.packed")
    assert not any(tmp_path.iterdir())


def test_a_model_without_values_is_not_loaded_into(tmp_path):
    save_packed(nn.Linear(2, 2), None, tmp_path / "net.packed")
    model = nn.Linear(2, 2, device="meta")
    with pytest.raises(SparsityError, match=r"write model.to_empty\(device='cpu'\)"):
        load_packed(tmp_path / "net.packed", model)
    load_packed(tmp_path / "net.packed", model.to_empty(device="cpu"))


@pytest.mark.parametrize(("number", "values"), [(math.inf, "int4"), (math.nan, "int2"), (3.4e38, "bfloat16")])
def test_numbers_that_cannot_be_rounded_are_refused(tmp_path, number, values):
    model = nn.Linear(2, 2)
    model.weight.data[0, 0] = number
    with pytest.raises(SparsityError, match=r"cannot hold 'weight'.*: write values='float32'"):
        save_packed(model, None, tmp_path / "net.packed", values=values)
    save_packed(model, None, tmp_path / "net.packed", values="float32")
    load_packed(tmp_path / "net.packed", again := nn.Linear(2, 2))
    assert same_bits(model, again)


def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path):
    model, path = tiny(), tmp_path / "net.packed"
    with pytest.raises(SparsityError, match=r"values='bf16' does not exist: .*allowed: bfloat16, float32, int2"):
        save_packed(model, None, path, values="bf16")
    with pytest.raises(SparsityError, match="is not zero at some dead connection"):
        save_packed(model, {"0.weight": torch.zeros(5, 6, dtype=torch.bool)}, path)
    with pytest.raises(SparsityError, match="is of no parameter"):
        save_packed(model, {"weight": torch.zeros(5, 6, dtype=torch.bool)}, path)
    with pytest.raises(SparsityError, match="is not the path of a file"):
        save_packed(model, None, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SparsityError, match="cannot be written to"):
        save_packed(model, None, tmp_path / "file" / "net.packed")
    assert not path.exists()


def test_without_the_library_nothing_is_written(tmp_path, monkeypatch):
    save_packed(tiny(), None, tmp_path / "there.packed")
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(SparsityError, match=r'constriction could not .*pip install "lightning-sparse\[export\]"'):
        save_packed(tiny(), None, tmp_path / "net.packed")
    with pytest.raises(SparsityError, match="constriction could not"):
        load_packed(tmp_path / "there.packed", tiny())
    assert not (tmp_path / "net.packed").exists()
    assert "0.weight" in packed_table(tmp_path / "there.packed")


def test_a_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "folder" / "net.packed"
    save_packed(tiny(), None, path)
    save_packed(tiny(), None, path, values="int2")
    assert [entry.name for entry in path.parent.iterdir()] == ["net.packed"]


def test_sizes_by_hand():
    # 2^13 connections in 128 rows of 64, of which a quarter lives anywhere: .8113 bits each, 830.8 bytes.
    alive = np.zeros(8192, dtype=bool)
    alive[np.random.default_rng(0).permutation(8192)[:2048]] = True
    mask = encode_mask(alive.reshape(128, 64))
    assert 8192 * (0.25 * 2 + 0.75 * math.log2(4 / 3)) / 8 == pytest.approx(830.8, abs=0.1)
    assert 830 <= len(mask) <= 830.8 + 128 * 3 / 8 + 16  # the rows' counts take about 2 bits each, and say something
    assert (decode_mask(mask, (128, 64), 2048) == alive.reshape(128, 64)).all()
    # The same number in 32 rows that live whole: 128 bits say which, and the rest is certain.
    whole = np.zeros((128, 64), dtype=bool)
    whole[::4] = True
    assert len(encode_mask(whole)) <= 128 * 0.8113 / 8 + 20
    # 4096 levels, half of them 0 and a quarter each 1 and 2: 1.5 bits each, 768 bytes.
    levels = np.random.default_rng(0).permutation(np.repeat([0, 0, 1, 2], 1024)).astype(np.uint8)[:, None]
    coded = encode_words(levels)
    assert 768 <= len(coded) <= 768 + 24
    assert (decode_words(coded, 4096, 1) == levels).all()
    # 1000 words of noise cannot be made smaller, and are hardly larger.
    noise = np.random.default_rng(0).integers(0, 256, (1000, 4), dtype=np.uint8)
    assert 4000 <= len(encode_words(noise)) <= 4008
    # Float32 between 1 and 2: sign and exponent are always the same, and the other 23 bits are noise: 2875 bytes.
    floats = turn((1 + np.random.default_rng(0).random(1000)).astype("<f4").view(np.uint8).reshape(-1, 4))
    assert 2870 <= len(encode_words(floats)) <= 2875 + 40


def test_a_file_of_a_few_weights_by_hand(tmp_path):
    model = nn.Linear(4, 2, bias=False)
    model.weight.data.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]))
    save_packed(model, None, tmp_path / "net.packed", values="bfloat16")
    (part,) = read_packed(tmp_path / "net.packed").parts
    # Which 2 of 8 live: log2(28) = 4.8 bits; a word of 4 bytes is the least that is written. Two equal bfloat16 numbers.
    assert (len(part.mask), part.living) == (4, 2)
    assert len(part.values) <= 8
    # 45 bytes of checksum and lengths, the header, two words.
    (length,) = struct.unpack_from("<I", (tmp_path / "net.packed").read_bytes(), 41)
    assert (tmp_path / "net.packed").stat().st_size == 45 + length + len(part.mask) + len(part.values)


def test_a_table_counts_every_byte(tmp_path):
    model = Classifier(resnet20((3, 8, 8), 10), mean=[0.5] * 3, std=[0.5] * 3)
    masks = {"net.3.conv1.weight": torch.rand(16, 16, 3, 3) < 0.1}
    model.net[3].conv1.weight.data[~masks["net.3.conv1.weight"]] = 0
    save_packed(model, masks, path := tmp_path / "net.packed")
    table, packed = packed_table(path), read_packed(path)
    living = int(masks["net.3.conv1.weight"].sum())
    assert f"net.3.conv1.weight         16 x 16 x 3 x 3     2304  {living:>6}" in table
    dense = sum(t.numel() * (4 if t.is_floating_point() else 8) for t in model.state_dict().values())
    assert packed.dense_bytes(4) == dense
    assert f"{packed.bytes} bytes with names and checksum: {packed.bytes / dense:.4f} of float32" in table
    (length,) = struct.unpack_from("<I", path.read_bytes(), 41)
    assert 45 + length + sum(len(part.mask) + len(part.values) for part in packed.parts) == packed.bytes


def test_a_trained_network_reaches_what_is_promised(tmp_path, digits, make_trainer):
    images, labels = digits.tensors
    loader = DataLoader(TensorDataset(images.view(-1, 1, 8, 8), labels), batch_size=64)
    for sparsity, bound in ((0.9, 0.11), (0.95, 0.06)):
        torch.manual_seed(0)
        model = Classifier(lenet_300_100((1, 8, 8), 10), mean=[0.3], std=[0.4])
        pruning = GradualPruning(sparsity)
        make_trainer(pruning, max_epochs=3).fit(model, loader)
        for values, share in (("float32", 1), ("bfloat16", 0.55), ("int4", 0.35)):
            save_packed(model, pruning.masks, path := tmp_path / "net.packed", values=values)
            assert path.stat().st_size <= share * bound * read_packed(path).dense_bytes(4)
