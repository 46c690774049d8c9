"""Folders as people have them: hidden ones are left out and named, others are refused with what to move, and then go on."""

import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from lightning_sparse import SparsityError
from lightning_sparse.data import ImageData


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("ant", "bee", "cat"):
            (tmp_path / "r" / split / name).mkdir(parents=True)
            for i in range(6):
                picture = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(picture).save(tmp_path / "r" / split / name / f"{i}.png")
    return tmp_path / "r"


def sizes(root, **changes):
    given = {"shape": (3, 8, 8), "classes": 3, "mean": [0.5], "std": [0.5], "validation": 0.25}
    data = ImageData("folder", root=root, **{**given, **changes})
    return [len(data.split(name)[1]) for name in ("train", "validation", "test")]


def refused(root, message, **changes):
    with pytest.raises(SparsityError, match=message):
        sizes(root, **changes)


@pytest.mark.parametrize("name", [".ipynb_checkpoints", ".git", "__MACOSX"])
def test_hidden_folders_are_left_out_and_named(name, root):
    assert sizes(root) == [13, 5, 18]
    for split in ("train", "test"):
        shutil.copytree(root / split / "bee", root / split / name)
    shutil.copytree(root / "train" / "ant", root / "train" / "ant" / name)
    (root / "train" / "ant" / "._0.png").write_bytes(b"Mac OS X")
    (root / "train" / ".DS_Store").write_bytes(b"x")
    with pytest.warns(UserWarning, match=rf"\.DS_Store, \._0\.png.*{name} \(3\)|{name} \(3\)") as said:
        assert sizes(root) == [13, 5, 18]
    assert len(said) == 1


def test_files_that_are_no_images_by_name_are_named_and_nothing_is_said_without_any(root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sizes(root)
    Image.new("RGB", (8, 8)).save(root / "train" / "bee" / "a.gif")
    (root / "train" / "bee" / "notes").write_text("x")
    (root / "train" / "b.png").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"\*\.gif, files outside of class folders, files without an ending"):
        assert sizes(root) == [13, 5, 18]


def test_nested_folders_links_capitals_spaces_and_umlauts_are_read(root):
    (root / "train" / "bee" / "more" / "and more").mkdir(parents=True)
    Image.new("RGB", (30, 9)).save(root / "train" / "bee" / "more" / "and more" / "Größe 図.JPG")
    (root / "train" / "bee" / "link.png").symlink_to(root / "train" / "bee" / "0.png")
    assert sizes(root) == [15, 5, 18]


def test_a_link_in_a_circle_and_a_link_to_nowhere_are_refused(root):
    (root / "train" / "bee" / "loop").symlink_to("..")
    refused(root, "loop' is a link to a folder that holds it: remove the link")
    (root / "train" / "bee" / "loop").unlink()
    (root / "train" / "bee" / "a.png").symlink_to("/no/such/file.png")
    refused(root, r"bee/a\.png' cannot be read \(No such file or directory\)")


def test_classes_have_to_be_in_both_splits_have_images_and_be_as_many_as_said(root):
    refused(
        root, "training images of 3 classes, not classes=5: write classes=3, or in a command data.classes=3", classes=5
    )
    (root / "train" / "dog").mkdir()
    refused(root, r"train/dog' holds no images \(.jpg.*\): add some, or remove the folder")
    shutil.copytree(root / "train" / "ant", root / "train" / "dog", dirs_exist_ok=True)
    refused(root, "test' has no class folder dog, as train has")
    shutil.copytree(root / "test" / "ant", root / "test" / "dog")
    refused(root, "training images of 4 classes, not classes=3: write classes=4")
    assert sum(sizes(root, classes=4)) == 48
    for i in range(1, 6):
        (root / "train" / "dog" / f"{i}.png").unlink()
    refused(root, "train/dog' holds one image", classes=4)


def test_one_class_is_refused(root):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            shutil.rmtree(root / split / name)
    refused(root, "training images of 1 classes, not classes=2: add images of another class", classes=2)


@pytest.mark.parametrize(("split", "grey"), [("train", 0), ("test", 255)])
def test_a_split_of_one_colour_is_refused_but_one_pixel_makes_it_a_picture(split, grey, root):
    for path in (root / split).rglob("*.png"):
        Image.new("L", (8, 8), grey).save(path)
    refused(root, f"all 18 images of the {'training' if split == 'train' else 'test'} split .* are of one colour")
    last = Image.new("L", (8, 8), grey)
    last.putpixel((3, 3), 128)
    last.save(root / split / "cat" / "5.png")
    assert sizes(root) == [13, 5, 18]


def test_a_broken_file_is_found_before_the_training_in_either_split(root):
    for split in ("test", "train"):
        (root / split / "bee" / "3.png").write_bytes(b"<html>")
        refused(root, f"{split}/bee/3.png' is no image")


def test_layouts_that_are_nearly_right_are_put_right_by_what_is_said(root):
    (root / "test").rename(root / "val")
    refused(root, "test' does not exist: rename val to test")
    (root / "val").rename(root / "test")
    refused(root / "train", f"write data.root={root}")
    assert sizes(root) == [13, 5, 18]
    root.rename(root.parent / "inner")
    root.mkdir()
    (root.parent / "inner").rename(root / "inner")
    refused(root, f"write data.root={root / 'inner'}")
    assert sizes(root / "inner") == [13, 5, 18]
    flat = root / "inner" / "train"
    flat.rename(root / "flat")
    refused(root / "flat", r"root holds the folders ant, bee, cat. Put images in root/train/<class>/")
    (root / "empty" / "train").mkdir(parents=True)
    (root / "empty" / "test").mkdir()
    refused(root / "empty", "holds no class folders: put images in root/train/<class>/")


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_validation_split_without_room_for_each_class_says_a_share_that_has_it(share, root):
    with pytest.raises(SparsityError, match="cannot hold all 3 classes: write validation=") as error:
        sizes(root, validation=share)
    written = float(str(error.value).split("write validation=")[1].split(",")[0])
    assert sum(sizes(root, validation=written)) == 36
