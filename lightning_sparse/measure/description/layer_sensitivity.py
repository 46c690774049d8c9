"""What a network loses when one layer alone is pruned: accuracy and loss, layer by layer and sparsity by sparsity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from lightning_sparse.anatomy.isolation import device_of, fork_random_states, untouched
from lightning_sparse.anatomy.parameters import Targets, outputs_first, sparsifiable
from lightning_sparse.anatomy.replay import replay
from lightning_sparse.engine.granularities import parse_granularity
from lightning_sparse.engine.granularity import Granularity
from lightning_sparse.engine.update import allocate
from lightning_sparse.errors import SparsityError, as_list, check_count, check_seed, check_share
from lightning_sparse.measure.batchnorm import batchnorm_in_words, recalibrate_batchnorm
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import as_classifier, batches
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.outputs import check_logits, check_not_padded
from lightning_sparse.measure.rows import mean_row, share_row
from lightning_sparse.measure.smaller_batches import smaller_batches
from lightning_sparse.results.layer_sensitivity import CHANGE, TOGETHER, UNPRUNED
from lightning_sparse.results.records import Measured, Record
from lightning_sparse.statistics.paired import bonett_price

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
MOST_SPARSITIES = 255  # counted in a byte for each connection


@smaller_batches
def measure_sensitivity_of_layers(
    model: nn.Module,
    data: Data,
    *,
    sparsities: Sequence[float] = SPARSITIES,
    granularity: str | Granularity = "weights",
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    train_data: Data | None = None,
    batch_size: int = 128,
    seed: int = 0,
    progress: bool = False,
) -> Measured:
    """Prune each layer alone by magnitude, without training, and measure what the network loses.

    After Li et al. 2017 (arXiv 1608.08710, figure 2) and Han et al. 2015 (arXiv 1506.02626, figure 6). The connections that
    die are those of one-shot pruning (:func:`~lightning_sparse.allocate`). **One layer at a time does not predict what
    pruning all of them does**: layers make up for each other, and their losses do not add up. So all layers together, each
    at that sparsity, are measured beside. Nor does it say what training can repair.

    Of each batch, what comes before the pruned layer is computed once, for all layers and sparsities
    (``anatomy/replay.py``); all results of a batch are held in memory for that. A network with randomness of its own in eval
    mode draws the same numbers in every pass.

    BatchNorm normalises by averages of the network that was trained. Those of a pruned one differ, and a loss that new
    averages would repair is no loss of the layer: **with BatchNorm, give train_data**. The averages are then estimated anew
    for every row, for the unpruned network too, which costs a pass over these images for each; 1000 are enough. Without
    ``train_data`` they stay as they are, because no other images may be used for that.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was. If it
            is sparse already, its zeros die first.
        data: images and labels or a loader, as for :func:`~lightning_sparse.measure.measure_accuracy`.
        sparsities: of the one layer, in (0, 1). A layer keeps one connection (block, channel) in any case.
        granularity: what dies as one: ``"weights"``, ``"channels"``, or another that the callbacks take.
        include: patterns of parameter names, as of :func:`~lightning_sparse.sparsifiable`; ``["*weight_hh*"]`` for LSTMs.
        exclude: patterns of names to leave out.
        train_data: training images and labels without augmentation, to estimate BatchNorm anew.
        batch_size: images per forward pass.
        seed: of the random states inside.
        progress: show a bar on stderr.

    Returns:
        Records. ``condition`` is ``"3.weight 0.9"``, ``"all layers 0.9"`` or, for the network as it is, ``"no layer 0"``:

        - ``sensitivity_accuracy`` in [0, 1] with its Wilson interval, and ``sensitivity_cross_entropy``, in nats;
        - ``sensitivity_accuracy_change`` in [-1, 1] and ``sensitivity_cross_entropy_change``: less that of the unpruned
          network on the same images, with intervals for pairs (Bonett and Price; normal). Negative is a loss of accuracy;
        - ``sensitivity_connections``: how many the layer has (``condition`` is its name).

        Arrays ``right``, bool, and ``cross_entropy``, float32, (n, conditions), in the order of the accuracies.

    Raises:
        SparsityError: if an argument, the images, the labels or the model's outputs are not what they should be.

    Example:
        A network whose first layer hands on one pixel in four, and whose second one has no weight to spare.

        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False), nn.Linear(2, 2, bias=False))
        >>> net[1].weight.data = torch.tensor([[1.0, 0.1, 0.1, 0.1], [0.1, 1.0, 0.1, 0.1]])
        >>> net[2].weight.data = torch.tensor([[3.0, -1.0], [-1.0, 2.0]])
        >>> images, labels = torch.eye(4).view(4, 1, 2, 2)[:2].repeat(10, 1, 1, 1), torch.tensor([0, 1]).repeat(10)
        >>> found = measure_sensitivity_of_layers(net, (images, labels), sparsities=[0.75])
        >>> for row in found.records:
        ...     if row.metric == "sensitivity_accuracy":
        ...         print(row.condition, row.value)
        no layer 0 1.0
        1.weight 0.75 1.0
        2.weight 0.75 0.5
        all layers 0.75 0.5
    """
    seed = check_seed(seed)
    check_count("batch_size", batch_size, write=128)
    levels, units = _check_sparsities(sparsities), parse_granularity(granularity)
    images, labels = images_and_labels(data)
    check_images(images, labels)
    classifier = as_classifier(model)
    train = None if train_data is None else images_and_labels(train_data, name="train_data")
    norms = _statistics(classifier)
    pruning = _Pruning.of(sparsifiable(classifier.model, include, exclude), levels, units)
    steps = len(pruning.points) * (-(-len(labels) // batch_size) + (1 if train and norms else 0))
    with (
        tqdm(total=steps, desc="layers", disable=not progress, leave=False) as bar,
        untouched(classifier, seed),
        torch.no_grad(),
        torch.compiler.set_stance("force_eager"),  # calls inside a compiled graph cannot be seen
    ):
        averages = _recalibrated(classifier, train, norms, pruning, seed, bar) if train and norms else []
        right, losses = _scores(classifier, images, labels, pruning, norms, averages, batch_size, seed, bar)
    words = f"granularity {units}; {batchnorm_in_words(bool(norms), len(train[1]) if train else 0)}; eval mode, float32"
    return Measured(_rows(pruning, right, losses, words), {"right": right, "cross_entropy": losses.astype(np.float32)})


class _Point(NamedTuple):
    """One network: which weights are pruned, to which of the sparsities."""

    what: str
    names: tuple[str, ...]
    sparsity: float
    place: int


class _Pruning(NamedTuple):
    """All networks to be scored; ``outlives`` says of how many of the ascending sparsities each connection is alive at."""

    targets: Targets
    originals: dict[str, Tensor]
    outlives: dict[str, Tensor]
    points: list[_Point]

    @classmethod
    def of(cls, targets: Targets, levels: Sequence[float], units: Granularity) -> _Pruning:
        points = [_Point(UNPRUNED, (), 0.0, 0)]
        points += [_Point(name, (name,), level, i) for name in targets for i, level in enumerate(levels)]
        points += [_Point(TOGETHER, tuple(targets), level, i) for i, level in enumerate(levels)]
        originals = {name: weight.detach().clone() for name, weight in targets.items()}
        return cls(targets, originals, {name: _outlives(targets, name, levels, units) for name in targets}, points)

    def in_order(self, names: Sequence[str]) -> list[int]:
        """The places of the points, those of single layers in the order of ``names``, and those of all layers last."""
        rank: dict[tuple[str, ...], int] = {(name,): i for i, name in enumerate(names)}
        return sorted(range(1, len(self.points)), key=lambda i: rank.get(self.points[i].names, len(rank)))

    @contextmanager
    def at(self, point: _Point) -> Iterator[None]:
        """Prune the network, restored bit for bit afterwards."""
        try:
            for name in point.names:
                alive = self.outlives[name] > point.place
                torch.mul(self.originals[name], alive, out=self.targets[name].data)
            yield
        finally:
            for name in point.names:
                self.targets[name].data.copy_(self.originals[name])

    def changes(self, point: _Point) -> bool:
        """Whether any connection that dies is not zero already."""
        return any(bool(self.originals[name][self.outlives[name] <= point.place].any()) for name in point.names)

    def sparsity(self, point: _Point) -> float:
        """The share of the connections of these layers that is dead."""
        alive = [self.outlives[name] > point.place for name in point.names]
        total = sum(mask.numel() for mask in alive)
        return 1 - sum(int(mask.sum()) for mask in alive) / total if total else 0.0


def _outlives(targets: Targets, name: str, levels: Sequence[float], units: Granularity) -> Tensor:
    """At how many of the sparsities each connection of a layer lives; what dies at one is dead at all above it."""
    alone = Targets({name: targets[name]})
    alone.inputs_first = targets.inputs_first & {name}
    (shape,) = (weight.shape for weight in outputs_first(alone).values())
    most = 1 - units.size(shape) / shape.numel()  # one connection, block or channel lives
    found = torch.zeros(targets[name].shape, dtype=torch.uint8, device=targets[name].device)
    for level in levels:
        found += allocate(alone, max(0.0, min(level, most)), "uniform", units)[name]
    return found


def _statistics(classifier: nn.Module) -> list[Tensor]:
    """The running averages of all BatchNorm layers."""
    norms = [m for m in classifier.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    return [buffer for norm in norms for buffer in norm.buffers(recurse=False)]


def _recalibrated(
    classifier: nn.Module, train: Data, norms: list[Tensor], pruning: _Pruning, seed: int, bar: tqdm[None]
) -> list[list[Tensor]]:
    """BatchNorm's averages of each network. Before the layer that is pruned, they are those of the unpruned network."""
    found = []
    for point in pruning.points:
        with pruning.at(point):
            recalibrate_batchnorm(classifier, train, seed=seed)
        found.append([buffer.clone() for buffer in norms])
        bar.update()
    return found


def _scores(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    pruning: _Pruning,
    norms: list[Tensor],
    averages: list[list[Tensor]],
    batch_size: int,
    seed: int,
    bar: tqdm[None],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Whether each network is right on each image, and its cross-entropy there: (n, networks)."""
    right: list[Tensor] = []
    losses: list[Tensor] = []
    changes = [pruning.changes(point) for point in pruning.points]
    with replay(classifier, pruning.targets) as passes:
        for pixels, truth in batches(batch_size, device_of(classifier), images, labels):

            def forward(pixels: Tensor = pixels) -> Tensor:
                with fork_random_states(seed) if passes.draws else nullcontext():
                    return classifier(pixels.clone())  # type: ignore[no-any-return]

            def norms_of(place: int) -> None:
                for buffer, average in zip(norms, averages[place], strict=True) if averages else ():
                    buffer.copy_(average)

            norms_of(0)
            logits = passes.record(forward)
            if not right:
                check_images(images, labels, classes=logits.shape[1])
            check_not_padded(check_logits(logits))
            outputs = {0: logits}
            bar.update()
            for place in pruning.in_order(passes.latest_first()):
                point = pruning.points[place]
                if changes[place]:
                    with pruning.at(point):
                        norms_of(place)
                        outputs[place] = passes.run(point.names, forward)
                else:
                    outputs[place] = logits
                bar.update()
            table = torch.stack(
                [outputs[place] for place in range(len(outputs))], 2
            ).cpu()  # (images, classes, networks)
            several = truth.cpu()[:, None].expand(len(truth), len(outputs))
            right.append(table.argmax(1) == several)
            losses.append(F.cross_entropy(table, several, reduction="none").double())
    return torch.cat(right).numpy(), torch.cat(losses).numpy()


def _rows(pruning: _Pruning, right: npt.NDArray[np.bool_], losses: npt.NDArray[np.float64], words: str) -> list[Record]:
    rows, n = [], len(right)
    for place, point in enumerate(pruning.points):
        hits, loss = right[:, place], losses[:, place]
        condition = f"{point.what} {point.sparsity:.6g}"
        detail = f"as it is; {words}"
        if point.names:
            how = "each alone by magnitude" if point.what == TOGETHER else "alone by magnitude"
            detail = f"{point.what} pruned {how} to {pruning.sparsity(point):.6g}, not trained; {words}"
        rows += [share_row("sensitivity_accuracy", int(hits.sum()), n, condition=condition, detail=detail)]
        rows += [mean_row("sensitivity_cross_entropy", loss, condition=condition, detail=f"nats; {detail}")]
        if point.names:
            gained, lost = int((hits & ~right[:, 0]).sum()), int((right[:, 0] & ~hits).sum())
            ends = bonett_price(gained, lost, n)
            change = f"less the unpruned network on the same images; {detail}"
            rows += [
                Record(CHANGE, (gained - lost) / n, n, *ends, condition=condition, detail=change),
                mean_row("sensitivity_cross_entropy_change", loss - losses[:, 0], condition=condition, detail=change),
            ]
    sizes = {name: weight.numel() for name, weight in pruning.targets.items()}
    return rows + [Record("sensitivity_connections", size, 0, condition=name) for name, size in sizes.items()]


def _check_sparsities(sparsities: Sequence[float]) -> list[float]:
    listed = as_list(sparsities)
    if not listed:
        example = sparsities if isinstance(sparsities, float) else 0.9
        raise SparsityError(
            f"sparsities={sparsities!r} is not a list of shares in (0, 1): write sparsities=[{example}]"
        )
    found = sorted({check_share(f"sparsities[{i}]", value, one_allowed=False) for i, value in enumerate(listed)})
    if len(found) > MOST_SPARSITIES:
        raise SparsityError(f"sparsities hold {len(found)} numbers: write at most {MOST_SPARSITIES}")
    if not found[0]:
        raise SparsityError(
            f"sparsities={sparsities!r} hold 0, the network as it is, which is measured in any case: leave it out"
        )
    return found
