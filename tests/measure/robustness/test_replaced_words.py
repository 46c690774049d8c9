"""Words replaced by synonyms, against a plain loop and by hand."""

import math

import pytest
import torch
from torch import nn

from lightning_sparse import untouched
from lightning_sparse.measure import as_classifier, measure_robustness
from lightning_sparse.measure.robustness.of_synonyms import greedy, of_synonyms
from lightning_sparse.measure.robustness.threat import Walk
from measure.robustness.linear_bag import SYNONYMS, LinearBag, of, rows, texts


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
