"""The words of a text, replaced by synonyms: PWWS (Ren et al. 2019, ACL P19-1103) and a greedy run on the margin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.anatomy.tokens import PAD, UNKNOWN
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.robustness.threat import Threat, Walk
from lightning_sparse.measure.robustness.trust import THRESHOLDS
from lightning_sparse.results.records import Record

AT_ONCE = 256  # texts with one word replaced that go through the model together

_NO_GRADIENT = "no attack here needs a gradient"
_UNMADE = {
    "single_step": "a greedy run takes no gradient steps",
    "steps_converge": "a greedy run goes on until it has replaced every word",
    "straight_through": _NO_GRADIENT,
    "black_box": "the attacks themselves see no gradient",
    "zero_gradients": _NO_GRADIENT,
    "to_zero": "no eps allows every text, for a word has few synonyms",
}


@dataclass(frozen=True, kw_only=True)
class OfSynonyms(Threat):
    """All texts of which a share eps of the words or less has been replaced by synonyms.

    Attributes:
        table: (words, most), for the number of each word those of its synonyms, and 0 after them.
    """

    table: Tensor
    what = "texts"
    attacks = ("pwws", "greedy-margin", "noise")
    once = ("pwws", "greedy-margin")
    noise_limit = THRESHOLDS.noise_of_words

    @classmethod
    def in_place_of(cls, attack: str, classes: int) -> tuple[str, str]:
        """PWWS instead of attacks on cross-entropy, and the greedy run on the margin instead of the others."""
        by_loss = "pwws" if attack in ("fgsm", "pgd", "apgd-ce") else "greedy-margin"
        return (attack if attack in cls.attacks else by_loss), "changes pixels"

    def in_words(self, attack: str, walk: Walk, classes: int) -> str:
        """What PWWS and random synonyms are, and the unit of eps."""
        words = {
            "pwws": "PWWS: words are replaced one after another, each by the synonym that lowers the true class's "
            "probability most, in the order of this drop times the softmax over the text of what the word's absence costs",
            "greedy-margin": "words are replaced one after another, each by the synonym that lowers the true class's "
            "logit less the largest other one most, in the order of this drop",
            "noise": f"{walk.steps} draws of random synonyms at random places, seed {walk.seed}",
        }
        return f"{self.norm}, {words[attack]}; eps is the share of the text's words that may be replaced"

    def run(
        self, attack: str, classifier: nn.Module, inputs: Tensor, labels: Tensor, walk: Walk
    ) -> tuple[Tensor, Tensor]:
        """Draw synonyms at random for as many words of the tokens (n, length) as eps allows; the points are tokens."""
        result, broken = inputs.clone(), torch.zeros_like(labels, dtype=torch.bool)
        words, others = (inputs != PAD).sum(dim=1), self._others(inputs)
        counts = (others != PAD).sum(dim=2)
        shares = torch.arange(1, inputs.shape[1] + 1, device=inputs.device) / words.double().unsqueeze(1)
        allowed = (shares <= walk.eps).sum(dim=1, keepdim=True)
        with untouched(classifier, walk.seed), torch.no_grad():
            for _ in range(walk.steps):
                order = torch.rand(counts.shape, device=inputs.device).masked_fill(counts == 0, 2).argsort(dim=1)
                chosen = (order.argsort(dim=1) < allowed) & (counts > 0)
                which = (torch.rand(counts.shape, device=inputs.device) * counts).long()
                drawn = torch.where(chosen, others.gather(2, which.unsqueeze(2)).squeeze(2), inputs)
                left = (~broken).nonzero().squeeze(1)
                if len(left) == 0:
                    break
                wrong = classifier(drawn[left]).argmax(dim=1) != labels[left]
                result[left], broken[left] = drawn[left], wrong
        return result, broken

    def nearest(self, attack: str, classifier: nn.Module, inputs: Tensor, labels: Tensor, walk: Walk) -> Tensor:
        """The share of its words that a greedy run replaces until a text is misclassified."""
        with torch.no_grad():
            return greedy(classifier, inputs, labels, self._others(inputs), margin=attack == "greedy-margin")

    def rows(self, inputs: Tensor) -> list[Record]:
        """How many of the words cannot be attacked: unknown ones, and those without synonyms."""
        words = inputs != PAD
        n, total = len(inputs), int(words.sum())
        alike = int((self._others(inputs) != PAD).any(dim=2).sum())
        unknown = int((inputs == UNKNOWN).sum())
        found = {
            "robust_unknown_words": (unknown, "are not in the vocabulary, and are not replaced"),
            "robust_replaceable_words": (alike, "have a synonym that is in the vocabulary; no other is replaced"),
        }
        rows = []
        for name, (count, are) in found.items():
            detail = f"{count} of the {total} words of all texts {are}"
            rows.append(Record(name, count / total if total else math.nan, n, norm=self.norm, detail=detail))
        return rows

    def _others(self, tokens: Tensor) -> Tensor:
        """The synonyms (n, length, most) of each word, and 0 after them."""
        return self.table.to(tokens.device)[tokens.long()]


def greedy(classifier: nn.Module, tokens: Tensor, labels: Tensor, others: Tensor, *, margin: bool = False) -> Tensor:
    """Replace words of texts by synonyms, one after another, until each text is misclassified.

    A word's synonym is the one that alone would lower the true class's probability most. Words go in the order of this drop
    times the softmax, over the text's words, of the drop if the word is unknown instead (PWWS).

    Args:
        classifier: tokens to logits, in eval mode; no gradient is taken.
        tokens: (n, length), 0 at the end of a text.
        labels: (n,).
        others: (n, length, most), the synonyms of each word, and 0 after them.
        margin: go by the true class's logit less the largest other one, which does not vanish when logits are large, and in
            the order of the drop alone: one word is enough for it wherever one is.

    Returns:
        (n,), double, on the CPU: replaced words as a share of the text's; infinite where all are replaced and the class is
        still the true one, 0 where it never was.

    Example:
        >>> class Loud(nn.Module):  # class 1 from a word 4 on
        ...     def forward(self, tokens):
        ...         return torch.stack([3.5 + 0 * tokens[:, 0], 1.0 * tokens.amax(dim=1)], dim=1)
        >>> tokens = torch.tensor([[2, 3, 0]])
        >>> greedy(Loud(), tokens, torch.tensor([0]), torch.tensor([[[0, 0], [2, 4], [0, 0]]])).tolist()
        [0.5]
    """
    worth = _margin if margin else _probability
    logits: Tensor = classifier(tokens)
    clean = worth(logits, labels)
    away = torch.where(logits.argmax(dim=1) == labels, torch.inf, 0.0).double()
    words = tokens != PAD

    def drops(there: Tensor, instead: Tensor) -> Tensor:
        """What each replacement costs; ``there`` and ``instead`` (n, length, choices) are whether there is one, and which."""
        found = torch.full(there.shape, -torch.inf, dtype=torch.double, device=tokens.device)
        rows, places, which = there.nonzero(as_tuple=True)
        for part in torch.split(torch.arange(len(rows), device=tokens.device), AT_ONCE) if len(rows) else ():
            row, place = rows[part], places[part]
            texts = tokens[row]
            texts[torch.arange(len(part), device=tokens.device), place] = instead[row, place, which[part]]
            found[row, place, which[part]] = clean[row] - worth(classifier(texts), labels[row])
        return found

    drop, which = drops(others != PAD, others).max(dim=2)
    best = others.gather(2, which.unsqueeze(2)).squeeze(2)
    there, score = drop > -torch.inf, drop
    if not margin:
        absent = drops(words.unsqueeze(2), torch.full_like(tokens, UNKNOWN).unsqueeze(2)).squeeze(2)
        score = torch.where(there, absent.softmax(dim=1) * drop, -torch.inf)
    order = score.argsort(dim=1, descending=True, stable=True)

    now = tokens.clone()
    for step in range(int(there.sum(dim=1).max())):
        left = (away.isinf() & (there.sum(dim=1) > step)).nonzero().squeeze(1)
        if len(left) == 0:
            break
        place = order[left, step]
        now[left, place] = best[left, place]
        gone = left[classifier(now[left]).argmax(dim=1) != labels[left]]
        replaced = torch.full_like(away[gone], step + 1)  # a number over a tensor is not rounded as their quotient is
        away[gone] = replaced / words[gone].sum(dim=1)
    return away.cpu()


def _probability(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.double().softmax(dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    index = labels.unsqueeze(1)
    others = logits.scatter(1, index, float("-inf")).amax(dim=1)
    return (logits.gather(1, index).squeeze(1) - others).double()


def of_synonyms(norm: str, classifier: nn.Module, tokens: Tensor, synonyms: object) -> OfSynonyms:
    """Make it for a classifier, inside ``untouched``, of texts like these.

    Args:
        norm: its name.
        classifier: is tried on the largest number of a synonym.
        tokens: (n, length).
        synonyms: for the number of a word those of its synonyms.

    Raises:
        SparsityError: if ``synonyms`` are something else, hold a number that is no word, or one that the model does not know.
    """
    there = set(tokens.flatten().tolist())
    known = {word: others for word, others in check_synonyms(synonyms).items() if word in there}
    table = torch.zeros(max(there) + 1, max(map(len, known.values()), default=1), dtype=torch.long)
    for word, others in known.items():
        table[word, : len(others)] = torch.tensor(others)
    largest = int(table.max())
    try:
        with torch.no_grad():
            classifier(torch.full_like(tokens[:1], largest, device=device_of(classifier), dtype=torch.long))
    except IndexError as error:
        raise SparsityError(
            f"synonyms hold word {largest}, which the model does not know ({error}): write synonyms=data.synonyms() of the "
            "data that it was trained on"
        ) from error
    return OfSynonyms(norm, _UNMADE, table=table)


def check_synonyms(synonyms: object) -> dict[int, list[int]]:
    """Return for each word its synonyms other than itself, or raise a SparsityError.

    Example:
        >>> check_synonyms({5: [7, 5], 8: []})
        {5: [7]}
        >>> check_synonyms({5: [0]})
        Traceback (most recent call last):
        lightning_sparse.SparsityError: synonyms[5] holds 0, and words have numbers from 2 on: write synonyms=data.synonyms()
    """
    if not isinstance(synonyms, Mapping):
        raise SparsityError(
            f"synonyms={synonyms if synonyms is None else type(synonyms).__name__} and norm='synonyms': write "
            "synonyms=data.synonyms(), or for the number of a word those of its synonyms, {5: [7, 9]}"
        )
    found: dict[int, list[int]] = {}
    for word, others in synonyms.items():
        listed = list(others) if isinstance(others, Sequence) and not isinstance(others, str) else [others]
        for number in (word, *listed):
            if not isinstance(number, int) or isinstance(number, bool) or number <= UNKNOWN:
                raise SparsityError(
                    f"synonyms[{word!r}] holds {number!r}, and words have numbers from 2 on: write synonyms=data.synonyms()"
                )
        if kept := [other for other in dict.fromkeys(listed) if other != word]:
            found[word] = kept
    return found
