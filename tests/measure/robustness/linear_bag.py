"""Bags of words whose robustness can be worked out, frauds among them, and texts to attack them with."""

import torch
from torch import nn

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
