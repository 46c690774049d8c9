"""Planted label noise: exactly as much as was asked for, known, and only where a network learns."""

import pytest
import torch

from lightning_sparse.data import ImageData
from lightning_sparse.data.label_noise import noisy_labels

DIGITS = {"shape": (1, 8, 8), "classes": 10, "mean": [0.3], "std": [0.4]}
LABELS = torch.arange(10).repeat(1000)


def test_a_tenth_of_the_labels_drawn_anew_are_the_old_ones():
    noisy = noisy_labels(LABELS, 0.2, 10, 0)
    wrong = noisy != LABELS
    # Binomial(2000, 0.9): 1800, standard deviation 13.4
    assert 1750 < int(wrong.sum()) < 1850
    for label in range(10):  # every other class about as often: 180 / 9 = 20 each of a class
        assert int((wrong & (label == LABELS)).sum()) in range(140, 230)
        assert noisy[wrong & (label == LABELS)].bincount(minlength=10).count_nonzero() == 9


def test_labels_at_random_tell_nothing_and_all_of_none_are_drawn():
    assert torch.equal(noisy_labels(LABELS, 0.0, 10, 0), LABELS)
    drawn = noisy_labels(LABELS, 1.0, 10, 0)
    # Each of 100 pairs (old, new) is expected 100 times; chi squared with 81 degrees of freedom is below 130 in 99.96 %.
    pairs = (LABELS * 10 + drawn).bincount(minlength=100).float()
    assert float(((pairs - 100) ** 2 / 100).sum()) < 130


def test_less_noise_is_part_of_more_noise_and_a_seed_decides():
    little, much = (noisy_labels(LABELS, share, 10, 3) for share in (0.2, 0.4))
    changed = little != LABELS
    assert torch.equal(much[changed], little[changed])
    assert not torch.equal(little, noisy_labels(LABELS, 0.2, 10, 4))


def test_the_images_with_wrong_labels_are_not_those_that_training_draws_first():
    wrong = noisy_labels(LABELS, 0.2, 10, 0) != LABELS
    first = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(0))[:2000]
    assert 0.1 < float(wrong[first].float().mean()) < 0.26


@pytest.mark.parametrize("name", ["digits", "planted"])
def test_only_images_to_learn_from_are_touched(name):
    more = {**DIGITS, "shape": (1, 16, 16)} if name == "planted" else DIGITS
    clean, noisy = ImageData(name, **more), ImageData(name, **more, label_noise=0.4)
    for split in ("validation", "test"):
        assert all(map(torch.equal, clean.split(split), noisy.split(split)))
    (images, labels), (same, given) = clean.split("train"), noisy.split("train")
    assert torch.equal(images, same)
    assert torch.equal(noisy.wrong_labels(), labels != given)
    assert not clean.wrong_labels().any()
    trained = torch.cat([labels for _, labels in noisy.train_dataloader()])
    assert torch.equal(trained.bincount(), given.bincount())


def test_a_sample_says_which_of_its_own_labels_are_wrong():
    data = ImageData("digits", **DIGITS, label_noise=0.4)
    truth = ImageData("digits", **DIGITS).split("train")[1][data.sample("train", 100)]
    assert torch.equal(data.wrong_labels(100), data.split("train", 100)[1] != truth)
