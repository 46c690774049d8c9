"""Robust accuracy of texts: against closed forms and a plain loop, what catches a fraud, and what is refused."""

import math
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from lightning_sparse import GradualPruning, RobustnessMonitor, untouched
from lightning_sparse.data import TextData
from lightning_sparse.ephemeral import Selection
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier, measure_robustness
from lightning_sparse.measure.robustness.of_synonyms import greedy, of_synonyms
from lightning_sparse.measure.robustness.of_vectors import of_vectors
from lightning_sparse.measure.robustness.threat import Walk
from lightning_sparse.models import Classifier, bag_of_words

WORDS = 30


class LinearBag(nn.Module):
    """The logits are linear in the mean of the words' vectors; row 7 is dead, as after pruning."""

    def __init__(self, classes=3, scale=1.0, seed=0):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.words = nn.Embedding.from_pretrained(torch.randn(WORDS, 4, generator=draw), freeze=False)
        with torch.no_grad():
            self.words.weight[7] = 0
        self.read = nn.Linear(4, classes, bias=False)
        self.read.weight.data = torch.randn(classes, 4, generator=draw)
        self.scale = scale

    def forward(self, tokens):
        there = (tokens != 0).unsqueeze(2)
        return self.scale * self.read((self.words(tokens) * there).sum(1) / there.sum(1).clamp_min(1))


class Around(nn.Module):
    """A model whose vectors or logits something is done to."""

    def __init__(self, bag):
        super().__init__()
        self.bag = bag


class Rounds(Around):
    def forward(self, tokens):
        there = (tokens != 0).unsqueeze(2)
        vectors = (3 * self.bag.words(tokens)).round() / 3
        return self.bag.read((vectors * there).sum(1) / there.sum(1).clamp_min(1))


class Noisy(Around):
    def forward(self, tokens):
        logits = self.bag(tokens)
        return logits + 0.1 * torch.randn_like(logits)


class Mute(Around):
    """Gives its class and no scores."""

    def forward(self, tokens):
        return 5.0 * nn.functional.one_hot(self.bag(tokens).argmax(1), 3) + 0 * self.bag(tokens)


def texts(n=80, seed=1):
    """Texts of 2 to 8 words, padded to 9."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, WORDS, (n, 9), generator=draw)
    lengths = torch.randint(2, 9, (n, 1), generator=draw)
    return tokens * (torch.arange(9) < lengths)


def of(model, tokens):
    """Texts labelled as the model has them."""
    with torch.no_grad():
        return tokens, model(tokens).argmax(1)


SYNONYMS = {word: [(word * 5) % 28 + 2, (word * 11) % 28 + 2] for word in range(3, WORDS, 2)}


def rows(measured, metric="robust_accuracy"):
    return [row for row in measured.records if row.metric == metric]


def verdicts(measured):
    return [row.trust for row in rows(measured) if row.attack == "worst"]


def checks(measured):
    return {row.metric.removeprefix("trust_"): row for row in measured.records if row.metric.startswith("trust_")}


def test_moves_of_vectors_break_a_linear_bag_just_where_the_closed_form_says():
    model = LinearBag()
    tokens, labels = of(model, texts())
    # n words, each moved by d / sqrt(n) in one direction, move the mean by d / sqrt(n): the number of words cancels out.
    vectors = model.words.weight.detach()
    living = [row for row in range(1, WORDS) if row != 7]
    length = vectors[living].norm(dim=1).mean()
    logits, rows_of = model(tokens).detach(), model.read.weight.detach()
    at = []
    for logit, label in zip(logits, labels.tolist(), strict=True):
        others = [c for c in range(3) if c != label]
        at.append(min(float((logit[label] - logit[c]) / (rows_of[label] - rows_of[c]).norm()) for c in others) / length)
    eps = [0.05, 0.1, 0.2, 0.4]
    measured = measure_robustness(model, (tokens, labels), eps=eps, norm="embedding", steps=40)
    survives = torch.tensor(measured.arrays["survives"])
    for column, radius in enumerate(eps):
        for stands, critical in zip(survives[:, column].tolist(), at, strict=True):
            if abs(critical / radius - 1) > 0.02:
                assert stands == (critical > radius)
    assert survives[:, 0].float().mean() > 0.1
    assert verdicts(measured) == ["passed"] * 4
    assert sum(row.samples for row in measured.records) == _seen(
        model, tokens, labels, eps=eps, norm="embedding", steps=40
    )


def _seen(model, tokens, labels, **settings):
    seen = []
    hook = model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    measure_robustness(model, (tokens, labels), **settings)
    hook.remove()
    return sum(seen)


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "pgd-margin", "noise"])
def test_moves_stay_in_each_texts_own_ball_and_padding_does_not_move(attack):
    model = LinearBag()
    tokens, labels = of(model, texts())
    classifier = as_classifier(model)
    with untouched(classifier):
        threat = of_vectors("embedding", classifier, tokens)
        moves, broken = threat.run(attack, classifier, tokens, labels, Walk(0.3, 5, 2, 0, None))
    count = (tokens != 0).sum(1)
    living = model.words.weight.detach()[1:].norm(dim=1)
    radius = 0.3 * living[living > 0].mean() * count.sqrt()
    lengths = moves.flatten(1).norm(dim=1)
    assert bool((lengths <= radius * 1.0001).all())
    assert bool((lengths > 0).all())
    assert not moves[:, 0][tokens == 0].any()
    if attack == "noise":
        assert torch.allclose(lengths, radius)
    assert bool(broken.any())


def plain(model, text, label, synonyms, *, margin):
    """The greedy run on one text, by loops: after how many words it is misclassified, and of how many."""

    def logits(words):
        with torch.no_grad():
            return model(torch.tensor([words]))[0].double()

    def worth(words):
        of_all = logits(words)
        if margin:
            return float(of_all[label] - max(of_all[c] for c in range(len(of_all)) if c != label))
        return float(of_all.softmax(0)[label])

    def swapped(words, place, word):
        return [*words[:place], word, *words[place + 1 :]]

    words = [word for word in text if word]
    absent = [math.exp(worth(words) - worth(swapped(words, place, 1))) for place in range(len(words))]
    chosen = []
    for place, word in enumerate(words):
        others = [other for other in synonyms.get(word, []) if other != word]
        if others:
            drop, best = max(((worth(words) - worth(swapped(words, place, o))), -i) for i, o in enumerate(others))
            score = drop if margin else drop * absent[place] / sum(absent)
            chosen.append((score, place, others[-best]))
    now = list(words)
    for count, (_, place, word) in enumerate(sorted(chosen, key=lambda one: (-one[0], one[1])), 1):
        now[place] = word
        if int(logits(now).argmax()) != label:
            return count / len(words)
    return math.inf


@pytest.mark.parametrize("margin", [False, True])
def test_the_greedy_run_is_that_of_a_plain_loop(margin):
    model = LinearBag(scale=3.0)
    tokens, labels = of(model, texts())
    table = of_synonyms("synonyms", as_classifier(model), tokens, SYNONYMS).table
    found = greedy(as_classifier(model), tokens, labels, table[tokens], margin=margin).tolist()
    expected = [
        plain(model, text.tolist(), int(label), SYNONYMS, margin=margin)
        for text, label in zip(tokens, labels, strict=True)
    ]
    assert found == expected
    assert len({share for share in found if share < math.inf}) > 5


class Sums(nn.Module):
    """Class 0 has the sum of the words' numbers here, class 1 has 0."""

    WORTH = (0.0, 0.0, 1.0, 0.6, 0.4, -0.2, -0.1, 0.3)

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding.from_pretrained(torch.tensor(self.WORTH).unsqueeze(1), freeze=False)

    def forward(self, tokens):
        total = self.words(tokens).sum(dim=1)
        return torch.cat([total, torch.zeros_like(total)], dim=1)


def test_words_are_replaced_in_an_order_worked_out_by_hand():
    # The text is 2 3 4 (worth 1.0, 0.6, 0.4, in all 2.0); 2 can become 7 (0.3), 3 can become 5 (-0.2) or 6 (-0.1).
    # Probabilities of class 0: 0.8808 as it is, 0.7858 with 7 for 2 (a drop of 0.0950), 0.7685 with 5 for 3 (0.1123).
    # Without 2 it is 0.7311 (0.1497 less), without 3 0.8022 (0.0786), without 4 0.8320 (0.0488): softmax .353 .329 .319.
    # Scores: 0.353 * 0.0950 = 0.0335 for 2, 0.329 * 0.1123 = 0.0369 for 3: first 3, which leaves 1.2, then 2, 0.5.
    tokens, labels = torch.tensor([[2, 3, 4, 0], [3, 0, 0, 0]]), torch.tensor([0, 0])
    alike = {2: [7], 3: [6, 5]}
    settings = {"norm": "synonyms", "synonyms": alike, "tier": "monitor"}
    measured = measure_robustness(Sums(), (tokens, labels), eps=[0.3, 2 / 3, 1.0], **settings)
    # The second text is one word: with it replaced, -0.2 is class 1. The first is right to the end.
    assert measured.arrays["survives"].tolist() == [[True, True, True], [True, True, False]]
    assert [(row.attack, row.value) for row in rows(measured)] == [
        ("pwws", 1.0), ("worst", 1.0), ("pwws", 1.0), ("worst", 1.0), ("pwws", 0.5), ("worst", 0.5),
    ]  # fmt: skip
    # 0.7 less everywhere: 3 replaced leaves 0.5 for the first, 2 too leaves -0.2: two words of three.
    shifted = as_classifier(Sums(), forward=lambda model, x: model(x) - torch.tensor([0.7, 0.0]))
    more = measure_robustness(shifted, (tokens[:1], labels[:1]), eps=[0.34, 0.6, 2 / 3], **settings)
    assert more.arrays["survives"].tolist() == [[True, True, False]]
    detail = rows(more)[0].detail
    assert "in place of pgd" in detail
    assert "run once, at the smallest eps" in detail


def test_words_that_cannot_be_attacked_are_counted():
    tokens = torch.tensor([[2, 1, 4, 0], [3, 2, 0, 0]])  # five words: one unknown, three that 2 and 3 have synonyms for
    settings = {"norm": "synonyms", "synonyms": {2: [7], 3: [3, 5], 6: [4], 4: [4]}}
    measured = measure_robustness(Sums(), (tokens, torch.tensor([0, 0])), eps=[0.5], **settings)
    (unknown,), (alike,) = (rows(measured, f"robust_{name}_words") for name in ("unknown", "replaceable"))
    assert (unknown.value, unknown.n, unknown.norm) == (1 / 5, 2, "synonyms")
    assert (alike.value, alike.eps) == (3 / 5, None)
    assert "3 of the 5 words" in alike.detail


def test_texts_without_any_synonym_stand():
    tokens = torch.tensor([[2, 3, 4], [5, 6, 0]])
    model = LinearBag()
    labels = model(tokens).argmax(dim=1)
    rows = measure_robustness(model, (tokens, labels), eps=[1.0], norm="synonyms", synonyms={29: [28]}).records
    assert {row.value for row in rows if row.metric == "robust_accuracy" and row.attack != "noise"} == {1.0}
    (replaceable,) = [row for row in rows if row.metric == "robust_replaceable_words"]
    assert replaceable.value == 0


def test_one_word_by_the_margin_is_as_good_as_trying_all_and_no_random_words_do_better():
    model = LinearBag(scale=200.0)
    tokens, labels = of(model, texts(150))
    table = of_synonyms("synonyms", as_classifier(model), tokens, SYNONYMS).table
    found = greedy(as_classifier(model), tokens, labels, table[tokens], margin=True)
    for text, label, share in zip(tokens, labels.tolist(), found.tolist(), strict=True):
        tried = [
            int(model(torch.cat([text[:place], torch.tensor([other]), text[place + 1 :]])[None])[0].argmax()) != label
            for place, word in enumerate(text.tolist())
            for other in SYNONYMS.get(word, [])
        ]
        assert any(tried) == (share <= 1 / int((text != 0).sum()))


def test_random_synonyms_are_as_many_as_eps_allows():
    tokens = texts(60)
    classifier = as_classifier(LinearBag())
    with untouched(classifier):
        threat = of_synonyms("synonyms", classifier, tokens, SYNONYMS)
        labels = torch.zeros(60, dtype=torch.long)
        drawn, _ = threat.run("noise", classifier, tokens, labels, Walk(0.4, 1, 1, 0, None))
    replaced = (drawn != tokens).sum(1)
    words = (tokens != 0).sum(1)
    can = sum((tokens == word) for word in SYNONYMS).sum(1)
    assert bool((replaced <= torch.minimum((words * 0.4 + 1e-9).floor().long(), can)).all())
    assert int(replaced.sum()) > 30
    for before, after in zip(tokens[drawn != tokens].tolist(), drawn[drawn != tokens].tolist(), strict=True):
        assert after in SYNONYMS[before]


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
