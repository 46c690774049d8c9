"""The string of a network: it decodes to the network, its parts add up to it, and what is broken is refused."""

import copy
import math

import pytest
import torch
from torch import nn

from compress.small_networks import convolutional
from lightning_sparse.compress import byte_string
from lightning_sparse.compress.draft import Draft
from lightning_sparse.compress.levels import codebook, even_grid
from lightning_sparse.compress.network_code import decode_network, encode_draft, encode_network
from lightning_sparse.compress.state import numbers_of
from lightning_sparse.errors import SparsityError


def _draft(pruned=0.0, levels="", **settings):
    draft = Draft(convolutional(), **settings)
    generator = torch.Generator().manual_seed(4)
    for name, weight in draft.weights().items():
        alive = torch.rand(weight.shape, generator=generator) >= pruned
        weight.data.mul_(alive)
        if pruned:
            draft.alive[name] = alive
        matrix, lives = weight.data.view(len(weight), -1), alive.view(len(weight), -1)
        if levels == "codebook":
            draft.levels[name] = codebook(matrix[lives], 5)
        elif levels:
            draft.levels[name] = even_grid(matrix, lives, 7, per_row="row" in levels, symmetric="symmetric" in levels)
        if levels:
            matrix.copy_(draft.levels[name].round(matrix) * lives)
    return draft


def _same(decoded, model):
    for (name, one), other in zip(decoded.state_dict().items(), model.state_dict().values(), strict=True):
        # What has neither a mask nor levels is kept in 16 bits.
        wanted = other if not one.is_floating_point() else other.half().float()
        assert torch.equal(one, wanted) or torch.equal(one, other), name


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("pruned", [0.0, 0.8])
@pytest.mark.parametrize("levels", ["", "codebook", "tensor", "row", "tensor symmetric", "row symmetric"])
def test_every_kind_decodes_to_the_network_and_its_parts_add_up(levels, pruned, entropy):
    draft = _draft(pruned, levels, entropy=entropy)
    content, account = encode_draft(draft, numbers_of(draft.model))
    decoded = decode_network(content, convolutional())
    _same(decoded, draft.model)
    for name, alive in draft.alive.items():
        assert not decoded.get_parameter(name)[~alive].any()
    assert account.bits == 8 * len(content)
    assert sum(account.part(part) for part in byte_string.PARTS) == account.bits
    again, _ = encode_draft(Draft(decoded, draft.alive, draft.levels, entropy=entropy), numbers_of(decoded))
    assert again == content


def test_without_the_range_coder_lzma_does_it(monkeypatch):
    draft = _draft(0.9, "codebook", entropy=True)
    shorter = len(encode_draft(draft, 1)[0])
    monkeypatch.setattr(byte_string, "has", lambda library: False)
    content, _ = encode_draft(draft, 1)
    assert len(content) > shorter
    _same(decode_network(content, convolutional()), draft.model)


def test_by_hand_two_weights_of_four_live_at_two_levels():
    net = nn.Linear(4, 1)
    net.weight.data = torch.tensor([[0.0, -1.0, 1.0, 0.0]])
    levels = {"weight": even_grid(net.weight.data, net.weight.data != 0, 2)}
    content, account = encode_network(net, {"weight": net.weight.data != 0}, levels, numbers=5, entropy=False)
    # a byte of mask, a byte for two symbols of one bit, two ends, a bias of two bytes and eight for no integers
    parts = {part: account.part(part) // 8 for part in ("mask", "values", "levels", "other")}
    assert parts == {"mask": 1, "values": 1, "levels": 4, "other": 2 + 8}
    assert account.ideal["mask"] == pytest.approx(math.log2(6) + math.log2(5))
    assert account.ideal["values"] == pytest.approx(2 + math.log2(3))
    assert account.ideal["levels"] == 32
    assert account.ideal["other"] == 16
    assert account.share == len(content) / 20


def test_a_codebook_of_the_whole_network_is_counted_once():
    draft = _draft()
    weights = draft.weights()
    shared = codebook(torch.cat([weight.data.flatten() for weight in weights.values()]), 16)
    for name, weight in weights.items():
        draft.levels[name] = shared
        weight.data.copy_(shared.round(weight.data.view(len(weight), -1)).view_as(weight))
    content, account = encode_draft(draft, 1)
    assert account.ideal["levels"] == 16 * 16
    assert account.part("levels") == 8 * (32 + 2)  # and a byte for each later layer
    _same(decode_network(content, convolutional()), draft.model)


def test_tied_weights_are_written_once():
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    net[1].weight = net[0].weight
    content, _ = encode_draft(Draft(net, entropy=True), 1)
    fresh = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    fresh[1].weight = fresh[0].weight
    decoded = decode_network(content, fresh)
    assert decoded[1].weight is decoded[0].weight
    _same(decoded, net)


def test_a_number_too_large_for_float16_is_kept_as_bfloat16_and_an_infinite_one_refused():
    net = nn.Linear(3, 1)
    net.weight.data = torch.tensor([[1e6, 1.0, 0.0]])
    decoded = decode_network(encode_draft(Draft(net), 1)[0], nn.Linear(3, 1))
    assert torch.equal(decoded.weight, net.weight.data.bfloat16().float())
    net.weight.data.fill_(math.inf)
    with pytest.raises(SparsityError, match="not finite"):
        encode_draft(Draft(net), 1)


def test_every_changed_byte_and_every_cut_is_refused():
    content, _ = encode_draft(_draft(0.9, "tensor", entropy=True), 1)
    for at in range(len(content)):
        broken = bytearray(content)
        broken[at] ^= 1 << at % 8
        with pytest.raises(SparsityError, match=r"damaged|no compressed network"):
            decode_network(bytes(broken), convolutional())
    for length in range(0, len(content), 7):
        with pytest.raises(SparsityError, match=r"damaged|no compressed network"):
            decode_network(content[:length], convolutional())


@pytest.mark.parametrize(
    "other",
    [
        nn.Linear(4, 2),
        nn.Sequential(*list(convolutional())[:-1]),
        nn.Sequential(*list(convolutional())[:-1], nn.Linear(72, 11)),
        nn.Sequential(*convolutional(), nn.Linear(10, 3)),
    ],
)
def test_another_architecture_is_refused_and_left_as_it_was(other):
    content, _ = encode_draft(_draft(0.9, "tensor", entropy=True), 1)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(SparsityError, match=r"does not fit model=.*give the dense architecture"):
        decode_network(content, other)
    assert all(torch.equal(one, two) for one, two in zip(before.values(), other.state_dict().values(), strict=True))
