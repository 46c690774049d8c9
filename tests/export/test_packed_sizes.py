"""Packed files are as small as the entropy allows, and their table counts every byte."""

import math
import struct

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_sparse import GradualPruning
from lightning_sparse.compress.entropy_coder import decode_mask, decode_words, encode_mask, encode_words, turn
from lightning_sparse.export import packed_table, save_packed
from lightning_sparse.export.packed_file import read_packed
from lightning_sparse.models import Classifier, lenet_300_100, resnet20


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
