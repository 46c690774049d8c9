"""What does not fit a packed file, or cannot be packed, is refused with what to write."""

import math
import sys

import pytest
import torch
from torch import nn

from export.packed_networks import same_bits, tiny
from lightning_sparse import SparsityError
from lightning_sparse.export import load_packed, packed_table, save_packed


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
    with pytest.raises(SparsityError, match=r'constriction could not .*pip install "lightning-sparse\[compress\]"'):
        save_packed(tiny(), None, tmp_path / "net.packed")
    with pytest.raises(SparsityError, match="constriction could not"):
        load_packed(tmp_path / "there.packed", tiny())
    assert not (tmp_path / "net.packed").exists()
    assert "0.weight" in packed_table(tmp_path / "there.packed")
