"""Packed files: equal to the bit, or to the rounded values, and nothing else is touched."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from export.packed_networks import masks_of, mixed, same_bits, tiny
from lightning_sparse import Masks, SparsityError
from lightning_sparse.compress.quantise import quantise
from lightning_sparse.export import load_packed, save_packed

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


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


def test_a_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "folder" / "net.packed"
    save_packed(tiny(), None, path)
    save_packed(tiny(), None, path, values="int2")
    assert [entry.name for entry in path.parent.iterdir()] == ["net.packed"]
