"""How many bits it takes to write down a network, and the labels that it leaves unexplained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.anatomy.living import living_of, rest_of
from lightning_sparse.compress.code_lengths import code_bits, mask_bits
from lightning_sparse.compress.quantise import quantise
from lightning_sparse.errors import SparsityError, check_count, check_seed
from lightning_sparse.measure.arrays import check_weight_masks
from lightning_sparse.measure.classifier import as_classifier, logits_of
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.smaller_batches import smaller_batches
from lightning_sparse.results.records import Measured, Record
from lightning_sparse.statistics.intervals import mean_interval

Floats = npt.NDArray[np.float64]


@smaller_batches
def measure_description_length(
    model: nn.Module,
    train_data: Data,
    *,
    masks: Mapping[str, Tensor] | None = None,
    max_bits: int = 8,
    train_size: int | None = None,
    batch_size: int = 512,
    seed: int = 0,
    progress: bool = False,
) -> Measured:
    """Measure the two-part code of the training labels: the network, and then the labels given network and images.

    The shortest description that explains the data is the best (Rissanen 1978; for networks Hinton & van Camp 1993; measured
    on modern ones by Blier & Ollivier 2018, arXiv 1802.07044, who find codes of this kind far from the best known). Per layer
    of N connections with k living ones:

    - mask: log2 C(N, k) + log2(N + 1) bits. A dense layer still pays the second term, for saying that k = N;
    - values: k H(q) + log2 C(k + 2^b - 1, 2^b - 1) + 64, where q are the living values rounded to 2^b levels evenly spaced
      from the smallest to the largest of the layer, and H their empirical entropy. The second term says how often each level
      occurs, the third the two ends;
    - b is one number for the whole network: the smallest at which the mean loss on ``train_data`` rises by no more than one
      standard error of that mean. If no b up to ``max_bits`` is enough, the values cost 32 bits each;
    - everything else that a checkpoint holds as floats (biases, norms, statistics): 16 bits each, and rounded to that;
    - labels: the sum of -log2 p(label | image) under the rounded network, on training images.

    The architecture is not counted: it is the same at every sparsity.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        train_data: training images and labels, without augmentation: all of them, or a sample.
        masks: by parameter name, True where a connection lives; without them zeros of sparsifiable weights are dead.
        max_bits: the largest b to try, in [1, 16].
        train_size: number of training images if ``train_data`` is a sample of them: the labels' bits are scaled up to it.
        batch_size: images per forward pass.
        seed: of the random states inside.
        progress: show a bar over the values of b.

    Returns:
        Records, in bits: ``cost_bits`` (the sum), ``cost_bits_mask``, ``cost_bits_values``, ``cost_bits_other``,
        ``cost_bits_labels``; and ``cost_value_bits``, which is b, or 32. ``cost_bits`` and ``cost_bits_labels`` have an
        interval if ``train_data`` is a sample. Arrays: ``label_bits`` (n,), the bits of each image's label, float32.

    Raises:
        SparsityError: if an argument does not fit, or masks or images are not what they should be.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> images, labels = torch.rand(50, 1, 8, 8), torch.arange(50) % 2
        >>> found = {row.metric: row.value for row in measure_description_length(net, (images, labels)).records}
        >>> round(found["cost_bits_mask"], 2), found["cost_bits_other"]  # log2(128 + 1), and two biases
        (7.01, 32.0)
    """
    seed = check_seed(seed)
    images, labels = images_and_labels(train_data)
    n = len(labels)
    _check(n, max_bits, train_size)
    size = train_size or n
    classifier = as_classifier(model)
    check_weight_masks(masks, dict(classifier.model.named_parameters()))
    layers = living_of(classifier.model, masks)
    rest = [tensor for tensor in rest_of(classifier.model, layers) if tensor.is_floating_point()]

    def losses() -> Floats:
        logits = logits_of(classifier, images, labels, batch_size=batch_size)
        return F.cross_entropy(logits.double(), labels.cpu().long(), reduction="none").numpy()

    with untouched(classifier, seed), _put_back([*rest, *(weight for weight, _ in layers.values())]):
        found = _shortest(list(layers.values()), rest, losses, max_bits, progress)

    counts = [(weight.numel(), int(alive.sum())) for weight, alive in layers.values()]
    bits = {
        "mask": sum(mask_bits(total, living) for total, living in counts),
        "values": found.value_bits,
        "other": 16.0 * sum(tensor.numel() for tensor in rest),
    }
    network, label_bits = sum(bits.values()), found.losses / math.log(2)
    of_labels, low, high = (size * end for end in mean_interval(label_bits))
    if n == size:  # the code of these very labels, not an estimate
        low = high = math.nan
    sample = f"{n} training images" + (f", scaled to {size}" if n < size else "")
    total, living = (sum(column) for column in zip(*counts, strict=True))
    alone = size * code_bits(labels.cpu().numpy(), 0) / n
    details = {
        "mask": f"log2 C(N, k) + log2(N + 1) a layer, {len(counts)} layers; {living} of {total} connections live",
        "values": f"{'k H(q), the histogram and two ends a layer' if found.width < 32 else '32 a value'}; {found.words}",
        "other": "biases, norms and buffers at 16 bits a float; integers are not counted",
    }
    of_all = (
        f"mask + values + other + labels; {found.words}; {sample}; without a network the labels take {alone:.0f} bits"
    )
    of_alone = f"-log2 p(label) under the rounded net; {sample}"
    return Measured(
        [
            Record("cost_bits", network + of_labels, n, network + low, network + high, detail=of_all),
            *(Record(f"cost_bits_{part}", bits[part], n, detail=detail) for part, detail in details.items()),
            Record("cost_bits_labels", of_labels, n, low, high, detail=of_alone),
            Record("cost_value_bits", float(found.width), n, detail=found.words),
        ],
        {"label_bits": label_bits.astype(np.float32)},
    )


class _Found(NamedTuple):
    width: int
    value_bits: float
    losses: Floats  # of each image, under the rounded network, in nats
    words: str


def _shortest(
    layers: list[tuple[Tensor, Tensor]], rest: list[Tensor], losses: Callable[[], Floats], max_bits: int, progress: bool
) -> _Found:
    """Round the network in place, ever finer, until its loss is as good as before."""
    originals = [weight[alive] for weight, alive in layers]
    before = losses()
    slack = float(before.std(ddof=1)) / math.sqrt(len(before))
    for tensor in rest:
        tensor.data.copy_(_in_16_bits(tensor))
    for width in tqdm([*range(1, max_bits + 1), 32], "bits a value", disable=not progress, leave=False):
        value_bits = 0.0
        for (weight, alive), original in zip(layers, originals, strict=True):
            if width < 32:
                levels, rounded = quantise(original.double().cpu().numpy(), width)
                value_bits += code_bits(levels, 2**width) + 64
                weight.data[alive] = torch.from_numpy(rounded).to(weight)
            else:  # no coarser rounding is good enough: the values as they are
                value_bits += 32.0 * len(original)
                weight.data[alive] = original
        after = losses()
        if width == 32 or after.mean() - before.mean() <= slack:
            break
    words = (
        f"b = {width} bits in all layers{'' if width < 32 else f', since none up to {max_bits} would do'}: mean loss "
        f"{before.mean():.4g} nats as trained, {after.mean():.4g} rounded, one standard error {slack:.2g}"
    )
    return _Found(width, value_bits, after, words)


def _in_16_bits(tensor: Tensor) -> Tensor:
    half = tensor.half()
    return half if bool(half.isfinite().all()) else tensor.bfloat16()


@contextmanager
def _put_back(tensors: list[Tensor]) -> Iterator[None]:
    """Restore tensors bit for bit afterwards, through ``.data``, so that autograd does not see it."""
    saved = [tensor.clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, before in zip(tensors, saved, strict=True):
            tensor.data.copy_(before)


def _check(n: int, max_bits: int, train_size: int | None) -> None:
    check_count("max_bits", max_bits, most=16, write=8)
    if train_size is not None:
        check_count("train_size", train_size, n, write="the size of the whole training set, or None if these are all")
    if n < 2:
        raise SparsityError(
            "train_data holds 1 image, and a standard error needs 2: give training images, 1000 or more"
        )
