"""How much of what a layer computes is told by a few of its weights, the rest predicted from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.errors import SparsityError, as_list, check_seed, check_share
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import as_classifier, logits_of
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.predictability.dictionary import RIDGE, chosen_coordinates, dictionary
from lightning_sparse.measure.predictability.layer_inputs import hidden_layers, inputs_of, matrix_of
from lightning_sparse.measure.rows import share_row
from lightning_sparse.measure.smaller_batches import smaller_batches
from lightning_sparse.results.records import Measured, Record

SHARES = (0.05, 0.25)
TOGETHER = "all layers"


@smaller_batches
def measure_predictability(
    model: nn.Module,
    data: Data,
    shares: Sequence[float] = SHARES,
    *,
    train_data: Data | None = None,
    untrained: nn.Module | None = None,
    batch_size: int = 512,
    seed: int = 0,
) -> Measured:
    """Keep a few weights of every unit, predict the others from them, and measure what is left of what the layer computes.

    After Denil et al. 2013 (arXiv 1306.0543). The kept weights are those of the inputs that say most about the other inputs
    (pivots of their covariance); the others follow by kernel ridge regression, with that covariance as the kernel. Nothing is
    trained. **That a network can be trained with 5 % of its weights is another statement**: for that the dictionary has to
    be there from the start, see :class:`~lightning_sparse.PredictWeights`.

    Each Linear and Conv2d layer that the model calls is predicted alone, and all of them together; a convolution as the
    matrix that multiplies its patches, each group of channels for itself. The output layer, called last, never is. Dead
    connections are weights of zero like others: they are kept as zeros, or predicted.

    Beside the prediction stand, from the same covariance: ``random``, other coordinates drawn at random; ``zeros``, the
    chosen coordinates with zeros in place of the prediction; ``low rank``, the best product of two matrices (what the layer
    computes, projected on its principal directions) that takes no more numbers than the kept weights.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        data: images and labels or a loader, as for :func:`~lightning_sparse.measure.measure_accuracy`.
        shares: of a unit's living inputs, in (0, 1): how many weights are kept, at least one. An input lives if it varies
            over the images of the covariance; a dead unit's output does not.
        train_data: images and labels for the covariance, better more of them than a layer has inputs; None takes ``data``.
        untrained: the same architecture as it was before training, predicted from its own inputs.
        batch_size: images per forward pass for the accuracy.
        seed: of the random coordinates.

    Returns:
        Records, of which ``condition`` is ``"3.weight 0.05"``, or ``"3.weight 0.05 random"``:

        - ``predictability_explained``: the share of what the layer computes that is explained, 1 - tr(D M D') / tr(W M W'),
          where W is the weight, D what is missing in its place, and M the mean of x x' over the layer's inputs. At most 1,
          below 0 where zeros would be better; NaN if the layer computes nothing. With ``untrained``, also for that.
        - ``predictability_accuracy`` in [0, 1], with its Wilson interval, with the prediction in place; ``condition`` may be
          ``"all layers 0.05"``.
        - ``predictability_mean``: the mean of the first over the layers, at the smallest share, without a condition.
        - ``predictability_living_inputs``: how many of a layer's inputs vary (``condition`` is its name).

    Raises:
        SparsityError: if an argument, the images, the labels or the model's outputs are not what they should be, or if there
            is no layer to predict.

    Example:
        All inputs are the same number, so one weight in four tells the others by what it reads. They are alike here.

        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False), nn.Linear(2, 2))
        >>> net[1].weight.data = torch.tensor([[1.0, 1, 1, 1], [2, 2, 2, 2]])
        >>> images, labels = torch.rand(8, 1, 1, 1).expand(8, 1, 2, 2), torch.tensor([0, 1]).repeat(4)
        >>> for row in measure_predictability(net, (images, labels), [0.25]).records:
        ...     if row.metric == "predictability_explained":
        ...         print(row.condition, round(row.value, 3))
        1.weight 0.25 1.0
        1.weight 0.25 random 1.0
        1.weight 0.25 zeros 0.438
        1.weight 0.25 low rank 0.0
    """
    levels, seed = _check_shares(shares), check_seed(seed)
    images, labels = images_and_labels(data)
    check_images(images, labels)
    train = images if train_data is None else images_and_labels(train_data, name="train_data")[0]
    classifier = as_classifier(model)
    told = f"covariance of inputs over {len(train)} {'of the same' if train_data is None else 'training'} images, "
    told += f"ridge {RIDGE:g}; eval mode"
    rows: list[Record] = []
    with untouched(classifier, seed), torch.no_grad():
        logits_of(classifier, images[:1], labels[:1])
        layers = _layers(classifier, images, train)
        if not layers:
            raise SparsityError(
                f"model={type(model).__name__} calls no Linear or Conv2d layer before its output layer, and that is never "
                "predicted: give a network with a hidden layer"
            )
        for share in levels:
            predictions = {name: layer.predicted(share, seed) for name, layer in layers.items()}
            for how in ("", " random", " zeros", " low rank"):
                values = {name: found[how] for name, found in predictions.items()}
                rows += _explained(layers, values, f"{share:g}{how}", told, len(images))
                places = {f"{name}.weight": [name] for name in layers} | {TOGETHER: list(layers)}
                for place, names in places.items():
                    with _in_place({layers[name].layer: values[name] for name in names}):
                        logits = logits_of(classifier, images, labels, batch_size=batch_size)
                    hits, where = int((logits.argmax(1) == labels.cpu()).sum()), f"{place} {share:g}{how}"
                    rows.append(share_row("predictability_accuracy", hits, len(labels), condition=where, detail=told))
    if untrained is not None:
        rows += _untrained(untrained, layers, levels, images, train, seed, told)
    first = [row.value for row in rows if row.metric == "predictability_explained"][: len(layers)]
    mean = Record("predictability_mean", sum(first) / len(first), len(images), detail=f"share {levels[0]:g}; {told}")
    living = [
        Record("predictability_living_inputs", int((layer.variances > 0).sum()), 0, condition=f"{name}.weight")
        for name, layer in layers.items()
    ]
    return Measured([mean, *rows, *living])


class _Layer(NamedTuple):
    """A layer, its weight (groups, outputs, inputs), its inputs' moment over the images, and their training covariance."""

    layer: Any
    weight: Tensor
    moment: Tensor
    covariance: Tensor

    @property
    def variances(self) -> Tensor:
        """(groups, inputs)."""
        return self.covariance.diagonal(dim1=1, dim2=2)

    def computes(self, weight: Tensor) -> float:
        """The mean over images of the squared outputs of such a weight, without the bias."""
        return float(((weight @ self.moment) * weight).sum())

    def predicted(self, share: float, seed: int) -> dict[str, Tensor]:
        """The weight predicted from a share of it, and the controls, all (groups, outputs, inputs)."""
        found: dict[str, list[Tensor]] = {"": [], " random": [], " zeros": [], " low rank": []}
        generator = torch.Generator().manual_seed(seed)
        for weight, moment, covariance in zip(self.weight, self.moment, self.covariance, strict=True):
            living = (covariance.diagonal() > 0).nonzero()[:, 0]
            count = max(1, round(share * len(living)))
            chosen = chosen_coordinates(covariance, count)
            found[""].append(weight[:, chosen] @ dictionary(covariance, chosen))
            drawn = living[torch.randperm(len(living), generator=generator)[:count]]
            found[" random"].append(weight[:, drawn] @ dictionary(covariance, drawn))
            kept = torch.zeros_like(weight)
            kept[:, chosen] = weight[:, chosen]
            found[" zeros"].append(kept)
            rank = count * len(weight) // (len(weight) + max(1, len(living)))
            directions = torch.linalg.eigh(weight @ moment @ weight.T)[1][:, len(weight) - rank :]
            found[" low rank"].append(directions @ directions.T @ weight)
        return {how: torch.stack(of_groups) for how, of_groups in found.items()}


def _layers(classifier: nn.Module, images: Tensor, train: Tensor) -> dict[str, _Layer]:
    """The hidden layers by name in ``classifier.model``, in the order of their calls."""
    layers = {name.removeprefix("model."): layer for name, layer in hidden_layers(classifier, images).items()}
    moments = inputs_of(classifier, layers, images)
    covariances = moments if train is images else inputs_of(classifier, layers, train)
    return {
        name: _Layer(
            layer,
            matrix_of(layer, layer.weight).to("cpu", torch.float64),
            moments[name].moment,
            covariances[name].covariance,
        )
        for name, layer in layers.items()
    }


def _explained(
    layers: Mapping[str, _Layer], values: Mapping[str, Tensor], words: str, told: str, n: int
) -> Iterator[Record]:
    """Of each layer, the share of what it computes that a weight in its place explains."""
    for name, layer in layers.items():
        whole = layer.computes(layer.weight)
        missing = layer.computes(layer.weight - values[name])
        value = 1 - missing / whole if whole else math.nan
        yield Record("predictability_explained", value, n, condition=f"{name}.weight {words}", detail=told)


def _untrained(
    untrained: nn.Module,
    trained: Mapping[str, _Layer],
    levels: Sequence[float],
    images: Tensor,
    train: Tensor,
    seed: int,
    told: str,
) -> Iterator[Record]:
    classifier = as_classifier(untrained)
    with untouched(classifier, seed), torch.no_grad():
        layers = _layers(classifier, images, train)
        if [(n, each.weight.shape) for n, each in layers.items()] != [(n, w.weight.shape) for n, w in trained.items()]:
            raise SparsityError(
                f"untrained={type(untrained).__name__} has other layers than the model: build the same architecture anew"
            )
        for share in levels:
            values = {name: layer.predicted(share, seed)[""] for name, layer in layers.items()}
            yield from _explained(layers, values, f"{share:g} untrained", told, len(images))


@contextmanager
def _in_place(values: Mapping[Any, Tensor]) -> Iterator[None]:
    """Put weights into layers, restored bit for bit afterwards."""
    before = {layer: layer.weight.detach().clone() for layer in values}
    try:
        for layer, value in values.items():
            layer.weight.data.copy_(value.reshape(layer.weight.shape))
        yield
    finally:
        for layer, weight in before.items():
            layer.weight.data.copy_(weight)


def _check_shares(shares: Sequence[float]) -> list[float]:
    listed = as_list(shares)
    if not listed:
        example = shares if isinstance(shares, float) else 0.05
        raise SparsityError(f"shares={shares!r} is not a list of shares in (0, 1): write shares=[{example}]")
    found = sorted({check_share(f"shares[{i}]", share, one_allowed=False) for i, share in enumerate(listed)})
    if not found[0]:
        raise SparsityError(f"shares={shares!r} hold 0, from which nothing can be predicted: write shares=[0.05]")
    return found
