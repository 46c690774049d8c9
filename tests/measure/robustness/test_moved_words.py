"""Moves of words' vectors, against the closed form of a linear bag."""

import pytest
import torch

from lightning_sparse import untouched
from lightning_sparse.measure import as_classifier, measure_robustness
from lightning_sparse.measure.robustness.of_vectors import of_vectors
from lightning_sparse.measure.robustness.threat import Walk
from measure.robustness.linear_bag import WORDS, LinearBag, of, texts, verdicts


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
