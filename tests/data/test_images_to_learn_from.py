import pytest
import torch

from lightning_sparse.data import ImageData

DIGITS = {"shape": (1, 8, 8), "classes": 10, "mean": [0.3], "std": [0.4]}
WHOLE = ImageData("digits", **DIGITS)


def rows(images):
    return {tuple(image.flatten().tolist()) for image in images}


def test_fewer_images_are_a_stratified_part_of_those_for_training():
    few = ImageData("digits", **DIGITS, images=100, label_noise=0.1)
    images, labels = few.split("train")
    assert images.shape == (100, 1, 8, 8)
    assert rows(images) <= rows(WHOLE.split("train")[0])
    assert len(torch.unique(labels)) == 10
    assert len(few.wrong_labels()) == 100
    assert sum(len(images) for images, _ in few.train_dataloader()) == 100
    for split in ("validation", "test"):
        assert all(map(torch.equal, WHOLE.split(split), few.split(split)))
    assert len(ImageData("digits", **DIGITS, images=10**6).split("train")[0]) == len(WHOLE.split("train")[0])


def test_pixels_change_places_in_every_split_alike():
    permuted = ImageData("digits", **DIGITS, permute_pixels=True)
    orders = []
    for split in ("train", "validation", "test"):
        (images, labels), (moved, same) = WHOLE.split(split), permuted.split(split)
        assert torch.equal(labels, same)
        assert not torch.equal(images, moved)
        sums, found = images.sum(0).flatten(), moved.sum(0).flatten()
        assert torch.equal(sums.sort().values, found.sort().values)
        orders.append(permuted._splits[split].order)
        assert torch.equal(images.flatten(1)[:, orders[-1]], moved.flatten(1))
    assert all(torch.equal(orders[0], order) for order in orders)
    assert sorted(orders[0].tolist()) == list(range(64))
    other = ImageData("digits", **DIGITS, permute_pixels=True, split_seed=1)
    assert not torch.equal(permuted.split("train")[0][:9], other.split("train")[0][:9])


@pytest.mark.parametrize("name", ["planted"])
def test_what_is_known_of_pixels_moves_with_them(name):
    more = {**DIGITS, "shape": (1, 16, 16)}
    plain, moved = ImageData(name, **more), ImageData(name, **more, permute_pixels=True)
    images, _ = moved.split("test", 20)
    for mask, pixels in moved.truth("test", 20).items():
        before = plain.truth("test", 20)[mask]
        assert torch.equal(pixels.sum((1, 2)), before.sum((1, 2)))
        lit = (images[:, 0] * pixels).sum()
        assert lit == pytest.approx(float((plain.split("test", 20)[0][:, 0] * before).sum()))
