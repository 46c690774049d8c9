"""A file that is no checkpoint is refused in one sentence that names it, and never with advice for one that is whole."""

import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse.engine.checkpoints import read_checkpoint
from lightning_sparse.engine.masks import Masks, load_masks
from lightning_sparse.errors import SparsityError

MASKS = Masks({"w": torch.arange(12).reshape(3, 4) % 3 == 0})
WEIGHTS = {"w": torch.ones(3, 4) * MASKS["w"]}


def content(**changes):
    masks = {"w": MASKS.pack()["w"] | changes}
    return {"state_dict": dict(WEIGHTS), "callbacks": {"lightning_sparse[]": {"lightning_sparse": 1, "masks": masks}}}


def saved(what=None, **how):
    file = io.BytesIO()
    torch.save(content() if what is None else what, file, **how)
    return file.getvalue()


def npz():
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


WHOLE, OLD = saved(), saved(_use_new_zipfile_serialization=False)
FILES = {
    "empty": b"",
    "text": b"hello\n",
    "text that looks like a pickle": b"cos\nsystem\n",
    "html": b"<!DOCTYPE html><html>404</html>",
    "half": WHOLE[: len(WHOLE) // 2],
    "a byte short": WHOLE[:-1],
    "its head": WHOLE[:10],
    "half of the old format": OLD[: len(OLD) // 2],
    "an image": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "a pickle": pickle.dumps([1]),
    "a pickled object": pickle.dumps(io.StringIO),
    "arrays": npz(),
}


@pytest.mark.parametrize("read", [load_masks, read_checkpoint, lambda path: read_checkpoint(path, trusted=True)])
@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_what_is_no_checkpoint_says_so(data, read, tmp_path):
    path = tmp_path / "given.ckpt"
    path.write_bytes(data)
    with pytest.raises(SparsityError, match=r"given\.ckpt'(| holds a list.*) (is|and) no checkpoint") as raised:
        read(path)
    assert "weights_only" not in str(raised.value)


def test_a_path_that_is_no_file_says_so(tmp_path):
    with pytest.raises(SparsityError, match="does not exist: give the path"):
        load_masks(tmp_path / "none.ckpt")
    (tmp_path / "last.ckpt").write_bytes(WHOLE)
    with pytest.raises(SparsityError, match=r"is a folder, and no checkpoint: .*such as '(.*last\.ckpt)'") as raised:
        load_masks(tmp_path)
    assert load_masks(str(raised.value).split("'")[-2])["w"].equal(MASKS["w"])


@pytest.mark.parametrize("what", [[1, 2], 5, torch.zeros(3)])
def test_a_file_that_holds_no_dict_says_what_it_holds(what, tmp_path):
    torch.save(what, tmp_path / "other.ckpt")
    with pytest.raises(SparsityError, match=f"holds a {type(what).__name__}, and no checkpoint"):
        load_masks(tmp_path / "other.ckpt")


@pytest.mark.parametrize("what", [None, 5, [1], b"x"])
def test_what_is_neither_a_path_nor_a_dict_says_what_to_write(what):
    with pytest.raises(SparsityError, match=r"is no path and no dict: write load_masks\(\"last.ckpt\"\)"):
        load_masks(what)


@pytest.mark.parametrize("what", [{}, {"state_dict": WEIGHTS}, dict(WEIGHTS), {"callbacks": None}, {"callbacks": [1]}])
def test_a_dict_without_masks_says_so(what):
    with pytest.raises(SparsityError, match="holds no masks"):
        load_masks(what)


@pytest.mark.parametrize(
    "changes",
    [
        {"bits": torch.zeros(0, dtype=torch.uint8)},
        {"bits": torch.zeros(99, dtype=torch.uint8)},
        {"bits": torch.zeros(2)},
        {"bits": torch.zeros(2, 1, dtype=torch.uint8)},
        {"bits": torch.tensor([0, 1], dtype=torch.uint8)},
        {"bits": None},
        {"bits": [0, 0]},
        {"shape": [1, 2]},
        {"shape": [-3, -4]},
        {"shape": None},
        {"shape": "ab"},
        {"shape": [3.0, 4]},
    ],
)
def test_a_damaged_mask_is_not_read_as_another(changes):
    with pytest.raises(SparsityError, match=r"sparse state is damaged \(the mask of 'w'"):
        load_masks(content(**changes))


@pytest.mark.parametrize("masks", [None, [1], {"w": None}, {"w": MASKS["w"]}, {"w": {}}])
def test_damaged_masks_are_refused(masks):
    with pytest.raises(SparsityError, match="sparse state is damaged"):
        load_masks({"lightning_sparse": 1, "masks": masks})


def test_one_wrong_byte_of_the_weights_is_noticed(tmp_path):
    large = saved(content() | {"state_dict": {"w": WEIGHTS["w"], "b": torch.zeros(1000)}})
    at = large.index(bytes(2000)) + 1000
    (tmp_path / "a.ckpt").write_bytes(large[:at] + b"\x01" + large[at + 1 :])
    with pytest.raises(SparsityError, match=r"is damaged \(the checksum of"):
        load_masks(tmp_path / "a.ckpt")


def test_a_whole_checkpoint_is_read_in_either_format_and_without_checksums(tmp_path):
    path = tmp_path / "a.ckpt"
    for data in (WHOLE, OLD):
        path.write_bytes(data)
        assert load_masks(path)["w"].equal(MASKS["w"])
    torch.serialization.set_crc32_options(False)
    try:
        path.write_bytes(saved())
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_masks(path)["w"].equal(MASKS["w"])


class OfOnesOwn:
    pass


def test_the_advice_for_objects_of_other_classes_works(tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(saved(content() | {"hyper_parameters": OfOnesOwn()}))
    with pytest.raises(SparsityError, match=r"write load_masks\(torch.load\(path, weights_only=False\)\)"):
        load_masks(path)
    assert load_masks(torch.load(path, weights_only=False))["w"].equal(MASKS["w"])


def test_a_pickled_module_holds_no_masks_and_gets_no_advice_to_trust_it(tmp_path):
    for how in ({}, {"_use_new_zipfile_serialization": False}):
        (tmp_path / "a.ckpt").write_bytes(saved(nn.Linear(2, 2), **how))
        with pytest.raises(SparsityError, match="holds no masks") as raised:
            load_masks(tmp_path / "a.ckpt")
        assert "weights_only" not in str(raised.value)


def test_weights_that_live_where_the_masks_say_dead_are_said_and_the_advice_works():
    disagrees = content()
    disagrees["state_dict"]["w"] = torch.ones(3, 4)
    with pytest.warns(UserWarning, match="8 weights of 'w' in this checkpoint are not zero"):
        masks = load_masks(disagrees)
    model = nn.Module()
    model.w, model.bias = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3))
    masks.apply({name: model.get_parameter(name) for name in masks})
    assert int(model.w.count_nonzero()) == masks.living
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_masks(content())


def test_masks_and_weights_of_two_models_are_refused():
    with pytest.raises(SparsityError, match=r"mask of 'w' has shape \[3, 4\], and its weights \[4, 3\]"):
        load_masks(content() | {"state_dict": {"w": torch.zeros(4, 3)}})
