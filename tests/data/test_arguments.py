"""What ImageData is given: refused at once with what to write, and what is written is taken."""

import math

import numpy as np
import pytest
import torch

from lightning_sparse import SparsityError
from lightning_sparse.data import ImageData, planted

DIGITS = {"shape": (1, 8, 8), "classes": 10, "mean": [0.3], "std": [0.4]}


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("shape", (8, 8), r"write shape=\[1,28,28\], or in a command data\.shape=\[1,28,28\]"),
        ("shape", 0, "is not a list"),
        ("shape", "1,8,8", "is not a list"),
        ("shape", [1, 8, np.zeros(3)], r"width=\[0.0, 0.0, 0.0\] is not an integer"),
        ("shape", [1, 8.0, 8], "height=8.0 is not an integer"),
        ("shape", [1, -8, 8], "height=-8 is not an integer"),
        ("shape", [3, 8, 8], r"has 3 channels, digits has 1: write shape=\[1,8,8\]"),
        ("classes", 0, "classes=0 is not an integer of at least 2"),
        ("classes", 1, "classes=1 is not an integer of at least 2"),
        ("classes", 2.0, "classes=2.0 is not an integer"),
        ("classes", None, "classes=None is not an integer"),
        ("mean", 0.3, r"mean=0.3 is not a list: write mean=\[0.5\]"),
        ("mean", [0.3, 0.3], "has 2 numbers for 1 channels"),
        ("mean", ["0.3"], "is not a list of numbers"),
        ("mean", [math.nan], r"is not in \[0, 1\]"),
        ("mean", [127.5], r"write mean=\[0.5\]"),
        ("mean", [10**400], r"is not in \[0, 1\].*write mean=\[0.5\]"),
        ("mean", [torch.zeros(2)], "is not a list of numbers"),
        ("std", [0], r"std=\[0\] is not in \[1e-06, 1\]"),
        ("std", [1e-50], r"std=\[1e-50\] is not in"),  # 0 in single precision
        ("std", [-1], r"is not in \[1e-06, 1\].*write std=\[0.25\]"),
        ("std", [63.75], r"write std=\[0.25\]"),
        ("batch_size", 0, "batch_size=0 is not an integer of at least 1: write 128"),
        ("batch_size", 1.5, "batch_size=1.5 is not an integer"),
        ("validation", math.nan, "validation=nan is not a share"),
        ("validation", "0.1", "validation='0.1' is not a number"),
        ("validation", 0, "leaves an empty split"),
        ("split_seed", -1, "split_seed=-1 is not an integer in"),
        ("shuffle_seed", "a", "shuffle_seed='a' is not an integer in"),
        ("num_workers", -1, "num_workers=-1 is not an integer in"),
        ("num_workers", 10**9, "num_workers=1000000000 is not an integer in"),  # each would be a process
        ("root", True, "root=True is not a path: leave it out"),
        ("root", {}, "root={} is not a path: leave it out"),
        ("shortcut", math.nan, "shortcut=nan is not a share"),
        ("label_noise", 20, "label_noise=20 is not a share in .0, 1.: write 0.2 for 20 percent"),
        ("images", 9, "images=9 is not an integer of at least 10"),
        ("images", "a", "images='a' is not an integer"),
        ("permute_pixels", 1, "permute_pixels=1 is neither true nor false"),
        ("download", "no", "download='no' is neither true nor false"),
    ],
)
def test_odd_values_are_refused_at_once(argument, value, message):
    with pytest.raises(SparsityError, match=message):
        ImageData("digits", **{**DIGITS, argument: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [1, 8, 8]},
        {"shape": torch.Size([1, 8, 8])},
        {"mean": torch.tensor([0.3]), "std": np.array([0.4])},
        {"mean": [np.float32(0.3)], "std": (1,)},
        {"batch_size": 10**6},
        {"root": "/no/such/folder", "download": True},  # needs none, and a script may give it to each data set
        {"split_seed": None, "shuffle_seed": None},
        {"classes": np.arange(10).max() + 1, "batch_size": np.int64(8), "split_seed": np.int64(3)},
    ],
)
def test_what_is_right_in_another_type_is_taken(changes):
    data = ImageData("digits", **{**DIGITS, **changes})
    assert next(iter(data.train_dataloader()))[0].shape[1:] == (1, 8, 8)


def test_one_mean_does_for_all_channels(tmp_path):
    data = ImageData("folder", root=tmp_path, shape=(3, 8, 8), classes=2, mean=[0.5], std=[0.5])
    assert (data.mean, data.std) == ([0.5], [0.5])


@pytest.mark.parametrize(
    ("name", "root", "message"),
    [
        ("folder", None, "holds train/ and test/"),
        ("folder", "", "root='' is not a path"),
        ("folder", "~nobody_of_this_name/d", "does not exist: write data.root="),
        ("folder", "d" * 5000, "cannot be read .File name too long.: write data.root="),
        ("mnist", 5, "root=5 is not a path"),
        ("mnist", __file__, "is a file: unpack it"),
    ],
)
def test_a_root_that_is_no_folder_is_refused(name, root, message):
    with pytest.raises(SparsityError, match=message):
        ImageData(name, **{**DIGITS, "root": root})


def test_the_home_folder_may_be_written_short(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    assert ImageData("folder", **DIGITS, root="~/pictures").root == tmp_path / "pictures"


def test_more_classes_than_there_are_say_how_many():
    with pytest.raises(SparsityError, match="of 10 classes, not classes=12: write classes=10"):
        ImageData("digits", **{**DIGITS, "classes": 12}).setup()


@pytest.mark.parametrize("what", ["split", "sample", "truth"])
def test_samples_have_a_known_name_and_a_number_that_holds_every_class(what):
    ask = getattr(ImageData("digits", **DIGITS), what)
    with pytest.raises(SparsityError, match=r"split='val' does not exist.*allowed: test, train, validation"):
        ask("val")
    for most in (-1, 0, 9, 1.5, "x", True):
        with pytest.raises(SparsityError, match="ask for at least 10, in whole numbers, or for all 360"):
            ask("test", most)
    with pytest.raises(SparsityError, match="into 355 and 5: ask for 10 to 350, or for all 360"):
        ask("test", 355)
    for most in (10, 350, 360, 10**9, None):
        ask("test", most)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True])
def test_seeds_of_planted_digits_are_integers(seed):
    with pytest.raises(SparsityError, match="is not an integer in"):
        planted(seed)
    assert torch.equal(planted(None)[0].images, planted(0)[0].images)
