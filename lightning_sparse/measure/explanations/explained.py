"""What a map is of: the pixels of images, or the vectors of a text's words, laid out as the pixels of one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.tokens import PAD, UNKNOWN, are_tokens
from lightning_sparse.measure.input_gradient import words_of


class Explained(NamedTuple):
    """What an attribution is computed of.

    Attributes:
        forward: ``forward(inputs, *extra)`` gives the logits (n, classes).
        inputs: (n, C, H, W): the pixels, or the vectors (n, dimensions, 1, length) of words.
        extra: nothing, or the tokens (n, length).
        blank: an input without information, (1, C, H, W): black, or the unknown word's vector in every place.
        unit: what random moves are measured in: 1, the pixels' range, or the size of a component of a word's vector.
    """

    forward: nn.Module
    inputs: Tensor
    extra: tuple[Tensor, ...]
    blank: Tensor
    unit: float


class OfVectors(nn.Module):
    """A classifier of tokens as one of their words' vectors; those of padding stay what they are, for padding is no word.

    Example:
        >>> model = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(6, 2))
        >>> classifier, tokens = OfVectors(model, model[0]), torch.tensor([[5, 0]])
        >>> logits = classifier(torch.zeros(1, 3, 1, 2), tokens)
        >>> [bool(torch.equal(classifier(torch.eye(2)[None, [i] * 3, None], tokens), logits)) for i in range(2)]
        [False, True]
    """

    def __init__(self, classifier: nn.Module, words: nn.Embedding) -> None:
        super().__init__()
        self.classifier, self.words = classifier, words

    def forward(self, vectors: Tensor, tokens: Tensor) -> Tensor:
        """Map vectors (n, dimensions, 1, length) of the words of tokens (n, length) to logits (n, classes)."""
        there = (tokens != PAD).unsqueeze(2)
        given = vectors.squeeze(2).transpose(1, 2)
        hook = self.words.register_forward_hook(
            lambda module, inputs, output: torch.where(there, given.to(output.dtype), output)
        )
        try:
            logits: Tensor = self.classifier(tokens)
        finally:
            hook.remove()
        return logits


def explained(classifier: nn.Module, given: Tensor) -> Explained:
    """Say what maps of images (n, C, H, W), or of tokens (n, length), are computed of, on the classifier's device."""
    words = words_of(classifier, given)
    if words is None:
        return Explained(classifier, given, (), given.new_zeros(1, 1, 1, 1), 1.0)
    with torch.no_grad():
        vectors, unknown = (words(tokens).float().transpose(1, 2) for tokens in (given, given[:1, :1] * 0 + UNKNOWN))
        unit = words.weight[PAD + 1 :].float().norm(dim=1).mean() / words.embedding_dim**0.5
    return Explained(OfVectors(classifier, words), vectors.unsqueeze(2), (given,), unknown.unsqueeze(2), float(unit))


def moves(at: Explained, count: int, seed: int, fill: Callable[..., Tensor], *limits: float) -> Tensor:
    """Draw ``count`` random moves (count, C, H, W), in the unit of the inputs, the same for all of them.

    Those of words are drawn place by place, so that a text has the same ones however long it is padded.

    Args:
        at: what is moved.
        count: how many moves.
        seed: of the draw.
        fill: ``torch.Tensor.normal_`` or ``uniform_``.
        limits: its two numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    channels, height, width = at.inputs.shape[1:]
    if at.extra:
        drawn = torch.cat(
            [fill(torch.empty(count, channels, 1, 1), *limits, generator=generator) for _ in range(width)], 3
        )
    else:
        drawn = fill(torch.empty(count, channels, height, width), *limits, generator=generator)
    return at.unit * drawn.to(at.inputs.device)


def without(given: Tensor) -> Tensor:
    """What is left of inputs when everything is removed: black images, or texts of unknown words, padding kept.

    Example:
        >>> without(torch.tensor([[5, 6, 0]]))
        tensor([[1, 1, 0]])
    """
    return torch.where(given == PAD, PAD, UNKNOWN) if are_tokens(given) else torch.zeros_like(given)


def shape_of_maps(given: Tensor) -> tuple[int, ...]:
    """The shape of the maps of inputs: (n, H, W), or (n, 1, length).

    Example:
        >>> shape_of_maps(torch.rand(2, 3, 8, 9)), shape_of_maps(torch.ones(2, 5, dtype=torch.long))
        ((2, 8, 9), (2, 1, 5))
    """
    return (len(given), 1, given.shape[1]) if are_tokens(given) else (len(given), *given.shape[2:])


def of_places(maps: Tensor, given: Tensor) -> Tensor:
    """Maps (n, H, W) with NaN where there is nothing to explain: at padding, and all over a map that is NaN anywhere.

    Whatever reads maps takes NaN for a place that does not exist.

    Example:
        >>> of_places(torch.ones(1, 1, 3), torch.tensor([[5, 6, 0]]))
        tensor([[[1., 1., nan]]])
    """
    nowhere = maps.isnan().any(dim=2, keepdim=True).any(dim=1, keepdim=True)
    if are_tokens(given):
        nowhere = nowhere | (given == PAD).unsqueeze(1).to(maps.device)
    return maps.masked_fill(nowhere, float("nan"))
