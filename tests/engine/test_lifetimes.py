import numpy as np
import pytest
import torch

from lightning_sparse.engine.lifetimes import Lifetimes, mean_age, median_age


class Ledger:
    """The same by hand: a birth step a weight, nan where it is dead."""

    def __init__(self, mask, step):
        self.born = np.where(mask, float(step), np.nan)
        self.first, self.ever = mask.copy(), mask.copy()

    def update(self, mask, step):
        self.born = np.where(mask, np.where(np.isnan(self.born), step, self.born), np.nan)
        self.first &= mask
        self.ever |= mask

    def ages(self, step):
        return step - self.born[~np.isnan(self.born)]


def random_masks(updates, shape=(13, 7), seed=0):
    """A third of the connections changes at each update, and some updates bear none or kill none."""
    generator = np.random.default_rng(seed)
    mask = generator.random(shape) < 0.5
    yield mask.copy()
    for update in range(updates):
        flip = generator.random(shape) < 0.3
        mask = mask & ~flip if update % 5 == 1 else mask | flip if update % 5 == 3 else mask ^ flip
        yield mask.copy()


# 126 births fit into a byte
@pytest.mark.parametrize("updates", [3, 125, 170, 400])
def test_ages_survivors_and_ever_lived_are_those_of_a_ledger(updates):
    lifetimes, ledgers = Lifetimes(), None
    for step, (one, two) in enumerate(zip(random_masks(updates), random_masks(updates, (5,), seed=1), strict=True)):
        lifetimes.update({"one": torch.tensor(one), "two": torch.tensor(two)}, step=10 * step)
        if ledgers is None:
            ledgers = Ledger(one, 0), Ledger(two, 0)
        for ledger, mask in zip(ledgers, (one, two), strict=True):
            ledger.update(mask, 10 * step)
        now = 10 * step + 3
        ages = np.concatenate([ledger.ages(now) for ledger in ledgers])
        values, counts = np.unique(ages, return_counts=True)
        assert lifetimes.ages(now) == dict(zip(values.astype(int).tolist(), counts.tolist(), strict=True))
        assert list(lifetimes.ages(now)) == sorted(lifetimes.ages(now), reverse=True)
        assert mean_age(lifetimes.ages(now)) == pytest.approx(ages.mean())
        assert median_age(lifetimes.ages(now)) == np.median(ages)
        assert lifetimes.survivors == sum(int(ledger.first.sum()) for ledger in ledgers)
        assert lifetimes.ever_lived == sum(int(ledger.ever.sum()) for ledger in ledgers)
    assert lifetimes.total == 13 * 7 + 5
    births = len(lifetimes.state_dict()["steps"])
    assert len(lifetimes.state_dict()["born"]["one"]) == (births + 1).bit_length()  # bits a weight
    assert lifetimes._born["one"].dtype == (torch.int8 if births <= 126 else torch.int16)


def test_updates_that_only_prune_need_no_more_bytes():
    lifetimes, mask = Lifetimes(), torch.ones(2000, dtype=torch.bool)
    for step in range(1000):
        mask[step] = False
        lifetimes.update({"w": mask}, step)
    assert lifetimes._born["w"].dtype == torch.int8
    assert len(lifetimes.state_dict()["born"]["w"]) == 2  # never lived, lives no more, lives since the beginning
    assert lifetimes.ages(1000) == {1000: 1000}
    assert lifetimes.ever_lived == 2000 - 1  # the first to die had died before the first look


@pytest.mark.parametrize("stop", [1, 30, 126, 127, 180])
def test_a_restored_one_goes_on_as_if_nothing_had_happened(stop, tmp_path):
    masks = [{"w": torch.tensor(mask), "b": torch.tensor(mask[0])} for mask in random_masks(200)]
    whole, first, second = Lifetimes(), Lifetimes(), Lifetimes()
    for step, mask in enumerate(masks[:stop]):
        whole.update(mask, step)
        first.update(mask, step)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert all(torch.equal(born, second._born[name]) for name, born in first._born.items())
    for step, mask in enumerate(masks[stop:], stop):
        whole.update(mask, step)
        second.update(mask, step)
        assert second.ages(300) == whole.ages(300)
        assert (second.survivors, second.ever_lived) == (whole.survivors, whole.ever_lived)


@pytest.mark.parametrize("counts", [{5: 1}, {5: 1, 9: 1}, {9: 3, 2: 3}, {9: 1, 4: 2, 2: 3}, {7: 2, 3: 1, 1: 2}])
def test_mean_and_median_are_numpys(counts):
    ages = np.repeat(list(counts), list(counts.values()))
    assert mean_age(counts) == pytest.approx(ages.mean())
    assert median_age(counts) == np.median(ages)


def test_masks_that_lie_in_memory_with_their_channels_last_are_the_same_masks():
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        lifetimes = Lifetimes()
        for step, mask in enumerate(random_masks(9, (4, 3, 3, 3))):
            lifetimes.update({"w": torch.tensor(mask).to(memory_format=layout)}, step)
        found.append((lifetimes.ages(9), lifetimes.survivors, lifetimes.ever_lived, lifetimes._born["w"].tolist()))
    assert found[0] == found[1]
