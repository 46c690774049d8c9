"""Attacks on texts: what catches a fraud, what is refused, and a training that is watched."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from lightning_sparse import GradualPruning, RobustnessMonitor
from lightning_sparse.data import TextData
from lightning_sparse.ephemeral import Selection
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier, measure_robustness
from lightning_sparse.models import Classifier, bag_of_words
from measure.robustness.linear_bag import SYNONYMS, LinearBag, Mute, Noisy, Rounds, checks, of, rows, texts, verdicts


@pytest.mark.parametrize(
    ("fraud", "norm", "caught"),
    [
        (lambda: LinearBag(scale=1e4), "embedding", {"losses agree", "zero gradients"}),
        (lambda: Rounds(LinearBag()), "embedding", {"zero gradients", "noise"}),
        (lambda: Noisy(LinearBag()), "embedding", {"deterministic"}),
        (lambda: Noisy(LinearBag()), "synonyms", {"deterministic"}),
        (lambda: Mute(LinearBag()), "synonyms", {"noise"}),
    ],
)
def test_frauds_are_caught(fraud, norm, caught):
    tokens, labels = of(LinearBag(), texts(200))
    settings = {"synonyms": SYNONYMS} if norm == "synonyms" else {}
    eps = 0.3 if norm == "embedding" else 0.8
    measured = measure_robustness(fraud(), (tokens, labels), eps=[eps], norm=norm, **settings)
    (trust,) = verdicts(measured)
    assert trust.startswith("failed: ")
    assert caught <= set(trust.removeprefix("failed: ").split(", "))


def test_checks_that_mean_nothing_say_why_and_cost_nothing():
    tokens, labels = of(LinearBag(), texts())
    words = checks(measure_robustness(LinearBag(), (tokens, labels), eps=[0.3], norm="synonyms", synonyms=SYNONYMS))
    made = {"noise", "losses_agree", "deterministic"}
    for name, row in words.items():
        assert row.detail.startswith("not made: ") == (name not in made)
        assert name in made or (row.samples, row.trust) == (0, "")
    vectors = checks(measure_robustness(LinearBag(), (tokens, labels), eps=[0.2], norm="embedding"))
    assert [name for name, row in vectors.items() if row.detail.startswith("not made: ")] == [
        "straight_through",
        "black_box",
    ]
    assert "where anything is allowed" in vectors["to_zero"].detail


class Hidden(nn.Module):
    """One winner of two: class 0, whose gradient leads away from where class 1 would win."""

    def __init__(self, hook):
        super().__init__()
        self.words = nn.Embedding.from_pretrained(torch.full((5, 1), 0.5), freeze=False)
        self.read = nn.Linear(2, 2, bias=False)
        self.read.weight.data = torch.eye(2)
        if hook:
            winner = Selection(self.read, "k_winners", 1000)
            winner.density.fill_(0.5)
            winner.eval_density.fill_(0.5)
            self.read.register_forward_pre_hook(winner)

    def forward(self, tokens):
        bright = self.words(tokens).mean(dim=(1, 2))
        return self.read(torch.stack([1 + 0.1 * bright, (bright - 0.5) * 20 - 0.2], dim=1))


def test_what_a_selection_hides_is_caught_straight_through():
    data = torch.full((30, 60), 3), torch.zeros(30, dtype=torch.long)
    settings = {"eps": [0.2], "norm": "embedding", "attacks": ["pgd", "pgd-margin"], "seed": 1}
    measured = measure_robustness(Hidden(hook=True), data, **settings)
    assert rows(measured)[-1].value == 1.0
    row = checks(measured)["straight_through"]
    assert (row.value, row.n, row.trust) == (1.0, 30, "failed")
    assert "straight through" in verdicts(measured)[0]
    assert rows(measure_robustness(Hidden(hook=False), data, **settings))[-1].value == 0.0


def test_one_more_eps_is_what_asking_for_all_at_once_gives():
    model = LinearBag()
    data = of(model, texts())
    settings = {"norm": "synonyms", "synonyms": SYNONYMS}
    before = measure_robustness(model, data, eps=[0.2, 0.6], **settings)
    more = measure_robustness(model, data, eps=[0.2, 0.4, 0.6], known=before, **settings)
    whole = measure_robustness(model, data, eps=[0.2, 0.4, 0.6], **settings)
    assert more.arrays["survives"].tolist() == whole.arrays["survives"].tolist()


IMAGES = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        ("texts", {}, r"norm='Linf' is of images, and data holds tokens of shape \(80, 9\): write norm='synonyms'"),
        ("texts", {"norm": "L2"}, "norm='L2' is of images.*write norm='embedding'"),
        (IMAGES, {"norm": "embedding"}, r"is of texts, and data holds images of shape \(2, 1, 8, 8\): write norm='Linf'"),
        (IMAGES, {"norm": "synonyms", "synonyms": {}}, "is of texts"),
        ("texts", {"norm": "synonyms"}, r"synonyms=None and norm='synonyms': write synonyms=data.synonyms\(\)"),
        ("texts", {"norm": "synonyms", "synonyms": [3]}, "synonyms=list and"),
        ("texts", {"norm": "synonyms", "synonyms": {5: [0]}}, r"synonyms\[5\] holds 0, and words have numbers from 2 on"),
        ("texts", {"norm": "synonyms", "synonyms": {5: "ab"}}, r"synonyms\[5\] holds 'ab'"),
        ("texts", {"norm": "synonyms", "synonyms": {5: [99]}}, "hold word 99, which the model does not know"),
        ("texts", {"norm": "embedding", "synonyms": SYNONYMS}, "synonyms= are of norm='synonyms'"),
        ("texts", {"norm": "synonyms", "synonyms": SYNONYMS, "eps": [1.5]}, r"eps=1.5 is not in \(0, 1\], the share of the"),
        ("texts", {"norm": "embedding", "eps": [-1]}, "eps=-1 is not a positive number, the share of the text's length"),
        ("texts", {"norm": "embedding", "attacks": ["square"]}, "attacks='square' does not exist.*fgsm, noise, pgd"),
        ("texts", {"norm": "synonyms", "synonyms": SYNONYMS, "attacks": ["pgd"]}, "allowed: greedy-margin, noise, pwws"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(data, settings, message):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)) if data is IMAGES else LinearBag()
    with pytest.raises(SparsityError, match=message):
        measure_robustness(model, of(model, texts()) if data == "texts" else data, **{"eps": [0.1]} | settings)


def test_a_model_whose_words_are_all_dead_or_without_gradient_is_refused_for_moves_and_not_for_synonyms():
    dead = LinearBag()
    dead.words.weight.data.zero_()
    data = texts(), torch.zeros(80, dtype=torch.long)
    with pytest.raises(SparsityError, match="all of them are zero: write norm='synonyms'"):
        measure_robustness(dead, data, eps=[0.1], norm="embedding")
    deaf = as_classifier(LinearBag(), forward=lambda model, x: model(x).detach())
    with pytest.raises(SparsityError, match=r"no gradient in the vectors of the words.*write attacks=\['noise'\]"):
        measure_robustness(deaf, data, eps=[0.1], norm="embedding")
    measure_robustness(deaf, data, eps=[0.1], norm="embedding", attacks=["noise"], tier="monitor")
    for model in (dead, deaf):
        measure_robustness(model, data, eps=[0.1], norm="synonyms", synonyms=SYNONYMS)


@pytest.mark.filterwarnings("ignore:.*test texts of the glosses are among")
def test_glosses_are_trained_watched_and_attacked():
    data = TextData(classes=10, texts=600, batch_size=32)
    torch.manual_seed(0)
    model = Classifier(
        bag_of_words(8000, 10), mean=None, std=None, optimizer=partial(torch.optim.AdamW, lr=5e-3, weight_decay=0.01)
    )
    monitor = RobustnessMonitor([0.02, 0.1], norm="embedding", images=100)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    callbacks = [GradualPruning(0.5, include=["*.weight"]), monitor]
    Trainer(max_epochs=6, callbacks=callbacks, accelerator="cpu", **quiet).fit(model, data)
    last = monitor.rows()[-2:]
    assert [row["eps"] for row in last] == [0.02, 0.1]
    assert last[0]["clean_accuracy"] > last[0]["robust_accuracy"] > last[1]["robust_accuracy"]
    for norm, eps in (("synonyms", [0.1, 0.25, 1.0]), ("embedding", [0.02, 0.1])):
        known = {"synonyms": data.synonyms()} if norm == "synonyms" else {}
        measured = measure_robustness(model, data.split("test", 150), eps=eps, norm=norm, **known)
        values = [measured.arrays["correct"].mean(), *(row.value for row in rows(measured) if row.attack == "worst")]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1] + 0.1
        assert all(verdicts(measured))


def test_the_monitor_watches_texts_in_the_embedding_alone():
    with pytest.raises(SparsityError, match=r"norm='synonyms' does not exist.*allowed: L2, Linf, embedding"):
        RobustnessMonitor(0.1, norm="synonyms")
    model = Classifier(LinearBag(), mean=None, std=None)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(max_epochs=1, callbacks=[RobustnessMonitor(0.1, data=of(LinearBag(), texts()))], **quiet)
    with pytest.raises(SparsityError, match=r"norm='Linf' is of images, and data holds tokens.*write norm='embedding'"):
        trainer.fit(model, torch.utils.data.DataLoader(list(zip(*of(LinearBag(), texts()), strict=True)), batch_size=8))
