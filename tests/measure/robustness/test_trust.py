"""The verdict: planted frauds are caught by the check made for them, and honest networks pass."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from lightning_sparse import untouched
from lightning_sparse.ephemeral import Selection
from lightning_sparse.measure import pgd
from lightning_sparse.measure.robustness.artefact_checks import losses_agree
from lightning_sparse.measure.robustness.attacked_model import AttackedModel
from lightning_sparse.measure.robustness.of_pixels import OfPixels
from lightning_sparse.measure.robustness.robust_accuracy import measure_robustness
from lightning_sparse.measure.robustness.trust import OF_THE_MODEL, Thresholds, verdict
from lightning_sparse.results.records import Record

EPS = [1 / 16, 2 / 16, 3 / 16]
CHECKS = {
    "single_step",
    "noise",
    "losses_agree",
    "steps_converge",
    "straight_through",
    "black_box",
    "zero_gradients",
    "deterministic",
    "to_zero",
}


class Around(nn.Module):
    """A model inside another."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


class Quantised(Around):
    """Rounds its pixels to 8 levels: a staircase has no slope."""

    def forward(self, x):
        return self.model((7 * x).round() / 7)


class Noisy(Around):
    """Adds noise of its own, in evaluation too."""

    def forward(self, x):
        return self.model(x + 0.1 * torch.randn_like(x))


class DropsOut(Around):
    """Drops units out whatever its mode."""

    def forward(self, x):
        return self.model[4:](F.dropout(self.model[:4](x), 0.2, training=True))


class BatchStatistics(Around):
    """Normalises by the statistics of the batch whatever its mode."""

    def forward(self, x):
        norm = self.model[1]
        hidden = F.batch_norm(self.model[0](x), None, None, norm.weight, norm.bias, training=True)
        return self.model[2:](hidden)


class AlwaysTraining(Around):
    """Ignores eval()."""

    def train(self, mode=True):
        return super().train(True)


class Winners(nn.Module):
    """Only the largest tenth of the units is kept (Xiao et al. 2019, arXiv 1905.10510): which units jumps with the input."""

    def forward(self, x):
        flat = x.flatten(1)
        least = flat.topk(max(1, flat.shape[1] // 10), dim=1).values[:, -1:]
        return (flat * (flat >= least)).view_as(x)


def trained(model, epochs=8, eps=0.0):
    """Train on the digits that the fixtures do not measure; with an eps, on adversarial images (Madry et al. 2018)."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))[:1200]
    images = torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1)[order]
    labels = torch.tensor(data.target)[order]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(epochs):
            for batch in torch.randperm(len(images)).split(64):
                x, y = images[batch], labels[batch]
                if eps:
                    with untouched(model):
                        x, _ = pgd(model, x, y, eps=eps, steps=5, keep_broken=True)
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
    return model


def measured(model, digits, **settings):
    return measure_robustness(model, (digits.images, digits.labels), **{"eps": EPS, **settings}).records


def verdicts(records):
    return [row.trust for row in records if row.attack == "worst" and row.metric == "robust_accuracy"]


def checks(records):
    return [row for row in records if row.metric.startswith("trust_")]


@pytest.fixture(scope="module")
def honest(digits):
    return measured(digits.model, digits)


def test_an_honest_network_passes_every_check_at_every_eps(honest):
    assert verdicts(honest) == ["passed"] * 3
    assert {row.trust for row in honest if row.metric != "trust_straight_through"} == {"passed"}
    unasked = [row for row in honest if row.metric == "trust_straight_through"]
    assert [(row.trust, row.n, row.samples) for row in unasked] == [("", 0, 0)] * 3  # and it costs no pass
    assert all("not made: not applicable: nothing in the model selects" in row.detail for row in unasked)
    assert {row.metric.removeprefix("trust_") for row in checks(honest)} == CHECKS


def test_an_honest_network_passes_in_l2_too(digits):
    records = measured(digits.model, digits, eps=[0.25, 0.5], norm="L2")
    assert verdicts(records) == ["passed"] * 2
    assert {row.norm for row in checks(records)} == {"L2"}


def test_an_adversarially_trained_network_passes_and_is_more_robust(digits, honest):
    # Smaller networks, trained for less time or with fewer steps, failed `losses agree` at some of these eps.
    net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 64), nn.ReLU())
    records = measured(trained(nn.Sequential(*net, nn.Linear(64, 10)), epochs=12, eps=0.15), digits)
    assert verdicts(records) == ["passed"] * 3
    robust, plain = (next(row.value for row in rows if row.metric == "robust_curve_area") for rows in (records, honest))
    assert robust > plain + 0.1


def test_an_untrained_network_has_honest_gradients_and_nothing_left(digits):
    torch.manual_seed(3)
    records = measured(nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), digits)
    assert {row.trust for row in checks(records) if row.metric in OF_THE_MODEL} == {"passed"}
    assert [row.value for row in records if row.attack == "worst" and row.eps == EPS[-1]] == [0.0]


FRAUDS = {
    "loud logits": (lambda model, times: times(model, 100.0), ["losses agree", "zero gradients"]),
    "quantised input": (lambda model, times: Quantised(model), ["black box", "zero gradients"]),
    "dropout in evaluation": (lambda model, times: DropsOut(model), ["deterministic"]),
    "batch statistics": (lambda model, times: BatchStatistics(model), ["deterministic"]),
    "always training": (lambda model, times: AlwaysTraining(model), ["deterministic"]),
    "random layer": (lambda model, times: Noisy(model), ["deterministic"]),
}


@pytest.fixture(scope="module")
def rows_of(digits, times):
    """The rows of a planted fraud, measured once, on half of the images."""
    half = replace(digits, images=digits.images[:75], labels=digits.labels[:75])
    return cache(lambda fraud: measured(FRAUDS[fraud][0](digits.model, times), half))


@pytest.mark.parametrize("fraud", sorted(FRAUDS))
def test_planted_frauds_fail_the_check_made_for_them_at_every_eps(rows_of, fraud):
    trusts = verdicts(rows_of(fraud))
    assert len(trusts) == len(EPS)
    for trust in trusts:
        assert trust.startswith("failed: ")
        assert set(FRAUDS[fraud][1]) <= set(trust.removeprefix("failed: ").split(", "))


def test_winners_take_all_is_broken_by_an_attack_without_gradients(digits):
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), Winners(), nn.Flatten())
    records = measured(trained(nn.Sequential(*net, nn.Linear(512, 64), Winners(), nn.Linear(64, 10))), digits)
    assert all("black box" in trust for trust in verdicts(records))


class Hidden(nn.Module):
    """One winner of two: class 0 until the whole image is bright, which no gradient tells, because class 1 has lost.

    The gradient of the winner leads to darker images, away from where class 1 would win.
    """

    def __init__(self, hook):
        super().__init__()
        self.read = nn.Linear(2, 2, bias=False)
        self.read.weight.data = torch.eye(2)
        if hook:
            winner = Selection(self.read, "k_winners", 1000)
            winner.density.fill_(0.5)
            winner.eval_density.fill_(0.5)
            self.read.register_forward_pre_hook(winner)

    def forward(self, x):
        bright = x.flatten(1).mean(1)
        return self.read(torch.stack([1 + 0.1 * bright, (bright - 0.5) * 20 - 0.2], dim=1))


def test_a_winner_that_hides_the_loser_is_caught_straight_through():
    images, labels = torch.full((30, 1, 8, 8), 0.5), torch.zeros(30, dtype=torch.long)
    settings = {"eps": [0.1], "attacks": ["pgd", "pgd-margin"], "seed": 1}
    records = measure_robustness(Hidden(hook=True), (images, labels), **settings).records
    worst = next(row for row in records if row.attack == "worst")
    assert worst.value == 1.0  # no attack by gradients has broken one
    row = next(row for row in records if row.metric == "trust_straight_through")
    assert (row.value, row.n, row.trust) == (1.0, 30, "failed")
    assert "straight through the selection (30)" in row.detail
    assert "straight through" in worst.trust
    assert "single step" not in worst.trust
    assert "steps converge" not in worst.trust
    honest = measure_robustness(Hidden(hook=False), (images, labels), **settings).records
    assert next(row for row in honest if row.attack == "worst").value == 0.0


def test_a_winner_without_any_gradient_is_caught_by_the_gradients_of_the_weights_without_it():
    class Deaf:
        straight_through = False

        def __call__(self, module, inputs):
            (x,) = inputs
            return (0 * x + (x * (x == x.amax(dim=1, keepdim=True))).detach(),)

    images, labels = torch.full((30, 1, 8, 8), 0.5), torch.zeros(30, dtype=torch.long)
    net = Hidden(hook=False)
    net.read.register_forward_pre_hook(Deaf())
    records = measure_robustness(net, (images, labels), eps=[0.1], attacks=["pgd", "pgd-margin"], seed=1).records
    row = next(row for row in records if row.metric == "trust_straight_through")
    assert (row.value, row.n, row.trust) == (1.0, 30, "failed")
    assert "selection (0), then" in row.detail
    assert "of noise (0), then" in row.detail
    assert "select nothing (30)" in row.detail
    assert len(net.read._forward_pre_hooks) == 1


def test_a_module_that_says_that_it_selects_is_asked_and_the_black_box_takes_all_images(digits):
    class Says(Winners):
        straight_through = False

        def forward(self, x):
            kept = super().forward(x)
            return x + (kept - x).detach() if self.straight_through else kept

    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), Says(), nn.Flatten())
    records = measured(trained(nn.Sequential(*net, nn.Linear(512, 64), Says(), nn.Linear(64, 10))), digits)
    left = {row.eps: round(row.value * row.n) for row in records if row.attack == "worst"}
    rows = {row.eps: row for row in records if row.metric == "trust_straight_through"}
    assert {eps: row.n for eps, row in rows.items()} == {eps: left[eps] for eps in EPS}
    assert all(row.trust in ("passed", "failed") for row in rows.values())
    (box,) = (row for row in records if row.metric == "trust_black_box")
    assert box.n == left[box.eps]


def test_every_failure_says_what_was_found_and_every_row_of_its_eps_carries_it(digits, times):
    records = measured(times(digits.model, 100.0), digits, eps=[1 / 16, 0.9])
    for row in checks(records):
        if row.metric == "trust_straight_through":
            continue
        assert row.detail.startswith("FAILED: " if row.trust == "failed" else "passed: ")
    small, large = (
        {row.trust for row in records if row.metric == "robust_accuracy" and row.eps == eps} for eps in (1 / 16, 0.9)
    )
    assert small == large == {"failed: losses agree, zero gradients"}
    assert [row.trust for row in records if row.metric in ("robust_curve_area", "robust_eps_half")] == [*small, *small]


def test_losses_disagree_only_where_the_interval_lies_above_the_threshold():
    attacked = AttackedModel(
        nn.Flatten(), torch.zeros(1000, 1, 1, 1), torch.zeros(1000), 2, OfPixels("Linf"), seed=0, batch_size=9
    )
    # Of 1000 images: Wilson's interval of 30 begins at 0.0211, that of 28 at 0.0194.
    for broken, trust in ((30, "failed"), (28, "passed"), (0, "passed")):
        row = losses_agree(attacked, ["pgd", "apgd-dlr"], [500, 500 - broken], 0.1)
        assert (row.value, row.n, row.trust) == (broken / 1000, 500, trust)


def test_what_does_not_listen_to_eval_is_named(rows_of):
    row = next(r for r in rows_of("always training") if r.metric == "trust_deterministic")
    assert "in training mode after eval(): model, model.model" in row.detail


def test_zero_gradients_are_counted_by_hand(digits):
    class Half(nn.Module):
        def forward(self, x):
            bright = (x.flatten(1)[:, :1] - 0.5).relu()
            return torch.cat([1 + bright, torch.zeros_like(bright)], dim=1)

    images = torch.linspace(0.1, 0.8, 8).view(8, 1, 1, 1).expand(8, 1, 1, 2).clone()
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1])
    records = measure_robustness(Half(), (images, labels), eps=[0.05], attacks=["pgd", "pgd-margin"]).records
    row = next(r for r in records if r.metric == "trust_zero_gradients")
    # Of the seven images of class 0, those at 0.1, 0.2, 0.3, 0.4 and 0.5 lie where the gradient is zero.
    assert (row.value, row.n, row.trust) == (5 / 7, 7, "failed")


def test_a_constant_model_is_never_broken_and_leaves_no_more_than_guessing():
    class Constant(nn.Module):
        def forward(self, x):
            return 0 * x.flatten(1).sum(1, keepdim=True) + torch.tensor([2.0, 0.0, 0.0])

    images, labels = torch.rand(20, 1, 2, 2), torch.tensor([0] * 12 + [1] * 8)
    records = measure_robustness(Constant(), (images, labels), eps=[0.5]).records
    rows = {row.metric: row for row in checks(records)}
    assert rows["trust_to_zero"].value == 12 / 20
    assert rows["trust_to_zero"].trust == "passed"
    assert verdicts(records) == ["failed: zero gradients"]


def test_a_sample_is_scaled_to_all_images(digits):
    records = measured(Quantised(digits.model), digits, eps=[0.25])
    row = next(r for r in records if r.metric == "trust_black_box")
    left = next(r for r in records if r.attack == "worst").value
    assert row.n == 40
    found = row.value / left * 40
    assert found == pytest.approx(round(found))
    assert f"broke {round(found)} of a sample of 40 of the {round(left * 150)} survivors" in row.detail


def test_the_black_box_is_asked_where_half_is_left(honest):
    worst = {row.eps: row.value for row in honest if row.attack == "worst" and row.metric == "robust_accuracy"}
    clean = 144 / 150
    nearest = min(worst, key=lambda eps: abs(worst[eps] - clean / 2))
    assert [row.eps for row in honest if row.metric == "trust_black_box"] == [nearest]


def test_what_checks_cost_does_not_grow_with_the_images(honest):
    spent = {row.metric: 0 for row in checks(honest)}
    for row in checks(honest):
        spent[row.metric] += row.samples
    assert 0 < spent.pop("trust_black_box") <= 40 * 503  # queries for each of 40 images, and three looks
    assert 0 < spent.pop("trust_steps_converge") <= len(EPS) * 40 * 101
    assert sum(spent.values()) <= len(EPS) * 5 * 150 + 6 * 150  # one step and three draws; the model's own checks


def test_with_one_attack_its_loss_has_nothing_to_agree_with(digits):
    records = measured(digits.model, digits, eps=[0.1], attacks=["pgd"])
    row = next(r for r in records if r.metric == "trust_losses_agree")
    assert (row.trust, row.n) == ("", 0)
    assert "not made: pgd is the only attack" in row.detail
    assert verdicts(records) == ["passed"]


def test_a_check_of_one_eps_decides_that_eps_and_one_of_the_model_all():
    rows = [
        Record("trust_noise", 0.1, 9, eps=0.1, trust="failed"),
        Record("trust_single_step", 0.1, 9, eps=0.2, trust="failed"),
        Record("trust_noise", 0.1, 9, eps=0.2, trust="failed"),
        Record("trust_black_box", 0.0, 9, eps=0.2, trust="passed"),
        Record("trust_losses_agree", float("nan"), 0, eps=0.3),
    ]
    assert [verdict(rows, eps) for eps in (0.1, 0.2, 0.3)] == ["failed: noise", "failed: single step, noise", "passed"]
    assert verdict(rows) == "failed: noise, single step"
    rows[3] = Record("trust_black_box", 0.5, 9, eps=0.2, trust="failed")
    assert verdict(rows, 0.1) == "failed: noise, black box"


def test_with_one_image_no_check_of_images_passes(digits):
    right = digits.model.eval()(digits.images).argmax(dim=1) == digits.labels
    one = digits.images[right][:1], digits.labels[right][:1]
    found = measure_robustness(digits.model, one, eps=[1e-3]).records
    assert {row.metric.removeprefix("trust_") for row in checks(found)} == CHECKS
    asked = [row for row in checks(found) if row.metric != "trust_straight_through"]
    assert all(row.trust == "" and row.detail.startswith("not enough images: ") for row in asked)
    assert verdicts(found) == [""]
    same = measure_robustness(digits.model, tuple(part.repeat_interleave(2, dim=0) for part in one), eps=[1e-3]).records
    unpassed = {row.metric for row in checks(same) if row.trust != "passed"}
    assert unpassed == {"trust_straight_through", "trust_to_zero"}  # not applicable; one class
    noisy = measure_robustness(Noisy(digits.model), one, eps=[1e-3]).records
    assert "deterministic" in verdicts(noisy)[0]  # a failure stays one


def test_thresholds_are_the_published_ones_or_stricter():
    assert Thresholds() == Thresholds(0.01, 0.002, 0.02, 0.01, 0.002, 0.002, 0.01, 1e-4, 2, 0.02)
