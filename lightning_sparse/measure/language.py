"""What a language model knows: bits per byte, perplexity, and how often it foretells the next token."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.anatomy.tokens import PAD, are_tokens
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import batches
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.rows import mean_row
from lightning_sparse.measure.smaller_batches import smaller_batches
from lightning_sparse.results.records import Measured, Record

Numbers = npt.NDArray[np.float64]


@smaller_batches
def measure_language(model: nn.Module, data: Data, *, batch_size: int = 64) -> Measured:
    """Measure how well a model foretells each token of texts from those before it.

    The first token of a text is given, and padding is not foretold.

    Args:
        model: tokens (n, length) to logits (n, length, tokens): those at a place are of the token after it. Also a model of
            transformers, whose output has ``logits``. It is left as it was.
        data: ``(texts, labels)``, of which texts (n, length) are integers, 0 being padding, and labels are not read; or a
            loader of such batches.
        batch_size: texts per pass.

    Returns:
        Four records of ``n`` texts: ``language_bits`` (bits a token; of bytes these are bits per byte),
        ``language_perplexity`` (2 to that power), ``clean_accuracy`` (share of tokens for which the likeliest is right) and
        ``clean_cross_entropy`` (nats a token). Each is a sum over texts divided by a sum over texts, with the normal
        interval of such a ratio.
        Arrays, each (n,): ``tokens``, ``nats``, ``right``: sums over each text.

    Raises:
        SparsityError: if the data are no texts of two tokens or more, or the logits have another shape.

    Example:
        >>> from lightning_sparse.models import tiny_gpt
        >>> texts = torch.randint(2, 258, (4, 16))
        >>> found = measure_language(tiny_gpt(258, length=16), (texts, torch.zeros(4, dtype=torch.long)))
        >>> [(row.metric, row.n) for row in found.records[:2]]
        [('language_bits', 4), ('language_perplexity', 4)]
    """
    texts, labels = images_and_labels(data)
    check_images(texts, labels)
    if not are_tokens(texts) or texts.shape[1] < 2 or not bool((texts[:, 1] != PAD).all()):
        raise SparsityError(
            f"data holds {texts.dtype} of shape {tuple(texts.shape)}, and a language model is measured on texts of two "
            "tokens or more, integers (n, length): leave out shorter ones"
        )
    found: list[Tensor] = []
    with untouched(model), torch.no_grad():
        for (part,) in batches(batch_size, device_of(model), texts):
            logits, targets = next_tokens(model, part)
            if int(part.max()) >= logits.shape[2]:
                raise SparsityError(
                    f"texts reach token {int(part.max())}, and the model foretells {logits.shape[2]}: give it a larger "
                    "vocabulary"
                )
            there = targets != PAD
            nats = F.cross_entropy(logits.float().transpose(1, 2), targets, ignore_index=PAD, reduction="none")
            right = (logits.argmax(dim=2) == targets) & there
            found.append(torch.stack([there.sum(1), nats.double().sum(1), right.sum(1)]).double().cpu())
    tokens, nats, right = (column.numpy() for column in torch.cat(found, dim=1))
    cross_entropy = _ratio("clean_cross_entropy", nats, tokens, "nats a token, eval mode, float32")
    bits = _ratio(
        "language_bits", nats / np.log(2), tokens, "bits a token, the first of each text given; eval mode, float32"
    )
    perplexity = Record(
        "language_perplexity",
        2**bits.value,
        bits.n,
        2**bits.low,
        2**bits.high,
        detail="two to the bits a token",
    )
    accuracy = _ratio("clean_accuracy", right, tokens, "likeliest next token, eval mode, float32")
    return Measured([bits, perplexity, accuracy, cross_entropy], {"tokens": tokens, "nats": nats, "right": right})


def next_tokens(model: nn.Module, texts: Tensor) -> tuple[Tensor, Tensor]:
    """The logits (n, length - 1, tokens) of the tokens after the first, and these tokens (n, length - 1).

    Raises:
        SparsityError: if the model gives something else.
    """
    output = model(texts)
    logits = getattr(output, "logits", output)
    if not (isinstance(logits, Tensor) and logits.dim() == 3 and logits.shape[:2] == texts.shape):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise SparsityError(
            f"the model gives {shape} for texts of shape {tuple(texts.shape)}, and a language model gives logits "
            "(n, length, tokens): give one such as lightning_sparse.models.tiny_gpt(words, length)"
        )
    return logits[:, :-1], texts[:, 1:]


def _ratio(metric: str, parts: Numbers, wholes: Numbers, detail: str) -> Record:
    """A sum over a sum, with the normal interval of the ratio of two means (linearised)."""
    value = parts.sum() / wholes.sum()
    around = value + (parts - value * wholes) / wholes.mean()  # whose mean is the ratio
    return mean_row(metric, around, detail=f"{detail}; {int(wholes.sum())} tokens of {len(parts)} texts")
