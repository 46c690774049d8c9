"""Tiers: what each runs, that names are checked, and that the expensive one costs a third of its parts run in full."""

from dataclasses import replace

import pytest
import torch
import torchattacks
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from lightning_sparse import untouched
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import ATTACKS
from lightning_sparse.measure.robustness.robust_accuracy import measure_robustness
from lightning_sparse.measure.robustness.sample_count import counted
from lightning_sparse.measure.robustness.tiers import TIERS, check_tier


def test_tiers_grow_harder_and_name_attacks_that_exist():
    assert list(TIERS) == ["monitor", "sweep", "reference"]
    assert [tier.steps for tier in TIERS.values()] == [10, 20, 100]
    assert [tier.checks for tier in TIERS.values()] == [False, True, True]
    assert {name for tier in TIERS.values() for name in tier.attacks} <= set(ATTACKS)


def test_a_tier_that_does_not_exist_is_refused():
    with pytest.raises(SparsityError, match="did you mean 'reference'"):
        check_tier("referense")


def test_the_monitor_makes_no_checks_and_gives_no_verdict(digits):
    measured = measure_robustness(digits.model, (digits.images, digits.labels), eps=[0.1], tier="monitor")
    assert [(row.metric, row.attack) for row in measured.records] == [
        ("robust_accuracy", "pgd"),
        ("robust_accuracy", "worst"),
        ("robust_curve_area", "worst"),
        ("robust_eps_half", "worst"),
    ]
    assert {row.trust for row in measured.records} == {""}
    assert "10 steps of 2.5*eps/10, 1 random start" in measured.records[0].detail


@pytest.fixture(scope="module")
def five_classes():
    """A small network for five digits: four targets instead of nine, so that the slow attacks are not so slow."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1)[order]
    labels = torch.tensor(data.target)[order]
    images, labels = images[labels < 5], labels[labels < 5]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(100):
            optimizer.zero_grad()
            F.cross_entropy(model(images[:800]), labels[:800]).backward()
            optimizer.step()
    return model, images[800:850], labels[800:850]


def test_reference_costs_a_third_of_the_same_attacks_run_in_full_on_their_survivors(five_classes, monkeypatch):
    """A tenth of the published steps and queries on both sides: the shares of the cost stay as they are."""
    model, images, labels = five_classes
    monkeypatch.setitem(TIERS, "reference", replace(TIERS["reference"], steps=10, queries=500))
    radii = [0.02, 0.05, 0.08]
    measured = measure_robustness(model, (images, labels), eps=radii, tier="reference")
    ours = {row.eps: row.value for row in measured.records if row.attack == "worst" and row.eps}
    spent = sum(row.samples for row in measured.records)
    theirs = {}
    with untouched(model), counted(model) as samples:
        for eps in radii:
            common = {"norm": "Linf", "eps": eps, "seed": 0, "n_restarts": 1}
            standing = model(images).argmax(1) == labels
            for attack in (
                torchattacks.APGD(model, steps=10, **common),
                torchattacks.APGDT(model, steps=10, n_classes=5, **common),
                torchattacks.FAB(model, steps=10, multi_targeted=True, n_classes=5, **common),
                torchattacks.Square(model, n_queries=500, resc_schedule=False, **common),
            ):
                left = standing.nonzero().squeeze(1)
                standing[left] = model(attack(images[left], labels[left])).argmax(1) == labels[left]
            theirs[eps] = standing.float().mean().item()
    assert spent <= samples.count / 3
    assert 0.1 < theirs[radii[-1]] < theirs[radii[0]] < 1
    for eps in radii:
        assert ours[eps] <= theirs[eps] + 1e-6
