"""The vectors of a text's words, moved in the embedding (after Miyato et al. 2017, arXiv 1605.07725)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.anatomy.tokens import PAD, moved
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.input_gradient import words_of
from lightning_sparse.measure.robustness.attacks import attack_detail
from lightning_sparse.measure.robustness.balls import shortened, steepest
from lightning_sparse.measure.robustness.pgd import ascend
from lightning_sparse.measure.robustness.threat import Threat, Walk


@dataclass(frozen=True, kw_only=True)
class OfVectors(Threat):
    """All moves of a text's words by together no more than eps times ``length`` times the square root of their number.

    A move is (n, 1, length, dimensions): an L2 ball around no move at all, in which padding does not move.

    Attributes:
        length: mean L2 length of the words' vectors, padding and rows of zeros left out.
        longest: that of the longest.
    """

    length: float
    longest: float
    what = "texts"
    attacks = ("fgsm", "pgd", "pgd-margin", "noise")

    @classmethod
    def in_place_of(cls, attack: str, classes: int) -> tuple[str, str]:
        """PGD on the margin instead of what moves pixels."""
        return (attack if attack in cls.attacks else "pgd-margin"), "moves pixels"

    def in_words(self, attack: str, walk: Walk, classes: int) -> str:
        """As for images, and the unit of eps."""
        setting = {"steps": walk.steps, "restarts": walk.restarts, "seed": walk.seed}
        said = attack_detail(attack, norm=self.norm, classes=classes, **setting)
        return (
            f"{said}; eps is the L2 length of all words' moves over the mean length of the words' vectors "
            f"({self.length:.4g}) times the square root of the number of words"
        )

    def run(
        self, attack: str, classifier: nn.Module, inputs: Tensor, labels: Tensor, walk: Walk
    ) -> tuple[Tensor, Tensor]:
        """Attack tokens (n, length); the points are moves."""
        radius, there = self._radius(inputs, walk.eps), _there(inputs)
        here, start, step = self._still(inputs), walk.start, 2.5 / walk.steps
        how: dict[str, Any] = {"loss": "ce", "steps": walk.steps, "restarts": walk.restarts}
        if attack == "fgsm":
            how, step = how | {"steps": 1, "restarts": 1}, 1.0
        elif attack == "noise":  # every walk is a draw, of no step
            how |= {"steps": 0, "restarts": walk.steps}
        elif attack == "pgd-margin":
            how["loss"] = "margin"

        def begin(restart: int, at: Tensor) -> Tensor:
            if attack == "fgsm":
                return here[at]
            if restart == 0 and start is not None:
                return shortened(start[at], radius[at])
            share = 1.0 if attack == "noise" else torch.rand_like(radius[at])
            return self._direction(inputs[at]) * radius[at] * share

        def onward(move: Tensor, gradient: Tensor, at: Tensor) -> Tensor:
            return shortened(move + step * radius[at] * steepest(gradient * there[at], "L2"), radius[at])

        def logits_at(move: Tensor, at: Tensor) -> Tensor:
            return self._logits(classifier, inputs[at], move)

        with untouched(classifier, walk.seed):
            return ascend(logits_at, labels, here, begin=begin, onward=onward, **how)

    def unmoved(self, inputs: Tensor) -> Tensor:
        """No move."""
        return self._still(inputs.cpu())

    def around(self, classifier: nn.Module, inputs: Tensor, eps: float) -> Tensor:
        """At moves drawn as PGD's starts are."""
        radius = self._radius(inputs, eps)
        return self._logits(classifier, inputs, self._direction(inputs) * radius * torch.rand_like(radius))

    def everything(self, inputs: Tensor) -> float:
        """Where every word can become any other."""
        return 2 * self.longest / self.length

    def _radius(self, tokens: Tensor, eps: float) -> Tensor:
        count = _there(tokens).sum(dim=2, keepdim=True)
        return (eps * self.length * count.float().sqrt()).clamp_min(torch.finfo(torch.float32).tiny)

    def _still(self, tokens: Tensor) -> Tensor:
        assert self.words is not None
        n, length = tokens.shape
        return torch.zeros(n, 1, length, self.words.embedding_dim, device=tokens.device)

    def _direction(self, tokens: Tensor) -> Tensor:
        """Moves of length 1 in random directions."""
        return steepest(self._still(tokens).normal_() * _there(tokens), "L2")

    def _logits(self, classifier: nn.Module, tokens: Tensor, move: Tensor) -> Tensor:
        assert self.words is not None
        with moved(self.words, move.squeeze(1).to(self.words.weight.dtype)):
            logits: Tensor = classifier(tokens)
        return logits


def _there(tokens: Tensor) -> Tensor:
    """Which places (n, 1, length, 1) hold a word."""
    return (tokens != PAD)[:, None, :, None]


def of_vectors(norm: str, classifier: nn.Module, tokens: Tensor) -> OfVectors:
    """Make it for a classifier, inside ``untouched``, of texts like these.

    Raises:
        SparsityError: if the model reads the tokens with no embedding or with several, or if no row of it is alive.
    """
    words = words_of(classifier, tokens)
    assert words is not None
    lengths = words.weight.detach().double().norm(dim=1)[PAD + 1 :]
    lengths = lengths[lengths > 0]
    if not len(lengths):
        raise SparsityError(
            "norm='embedding' measures moves by the length of the words' vectors, and all of them are zero: write "
            "norm='synonyms'"
        )
    why = {"black_box": "Square moves pixels; random moves are what noise tries"}
    return OfVectors(norm, why, words, length=float(lengths.mean()), longest=float(lengths.max()))
