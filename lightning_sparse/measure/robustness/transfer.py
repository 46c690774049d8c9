"""Whether models share their adversarial images: those crafted on one, tried on another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.measure.classifier import as_classifier, batches, logits_of
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.robustness.balls import check_eps, check_norm, distance, tolerance
from lightning_sparse.measure.robustness.pgd import pgd
from lightning_sparse.measure.rows import share_row
from lightning_sparse.results.records import Measured


def craft(
    model: nn.Module,
    data: Data,
    *,
    eps: float,
    norm: str = "Linf",
    steps: int = 20,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Craft an adversarial image of every image, by PGD on the logit margin (Madry et al. 2018), to be tried elsewhere.

    All images are attacked for all steps, also those that are wrong or broken already, and the last point is kept: one
    that is only just across this model's border is seldom across another's.

    Args:
        model: the source, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        data: images and labels or a loader, as for :func:`~lightning_sparse.measure.measure_accuracy`.
        eps: radius: in (0, 1] for L-inf, in units of [0, 1]; positive for L2.
        norm: ``"Linf"`` or ``"L2"``.
        steps: gradient steps, of 2.5 * eps / steps each, from one random start.
        batch_size: images per batch; with the seed it decides the random starts.
        seed: of the random starts.
        progress: show a bar on stderr.

    Returns:
        (n, C, H, W), float32 on the CPU, within eps of the images and in [0, 1].

    Raises:
        SparsityError: if an argument, the images, the labels or the model's outputs are not what they should be.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> adversarial = craft(model, (images, labels), eps=0.1)
        >>> bool((distance(adversarial, images, "Linf") <= 0.1 + 1e-6).all())
        True
    """
    eps, steps = check_eps("eps", eps, check_norm(norm)), check_count("steps", steps, write=20)
    images, labels = images_and_labels(data)
    classifier = as_classifier(model)
    crafted = []
    with untouched(classifier, seed):
        logits_of(classifier, images, labels, batch_size=batch_size)
        with tqdm(total=len(labels), desc="crafting", disable=not progress, leave=False) as bar:
            for part, targets in batches(batch_size, device_of(classifier), images, labels):
                adversarial, _ = pgd(
                    classifier, part, targets, eps=eps, norm=norm, steps=steps, loss="margin", keep_broken=True
                )
                crafted.append(adversarial.detach().cpu())
                bar.update(len(part))
    return torch.cat(crafted)


def measure_transfer(
    sources: Mapping[str, Tensor],
    model: nn.Module,
    data: Data,
    *,
    eps: float,
    norm: str = "Linf",
    batch_size: int = 512,
    seed: int = 0,
    progress: bool = False,
) -> Measured:
    """Measure a model's accuracy on adversarial images crafted on others (Papernot et al. 2016, arXiv 1605.07277).

    Args:
        sources: by name of the source model, what :func:`craft` made on it of the images of ``data``.
        model: the target, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        data: the clean images and their labels, or a loader of them, in the same order.
        eps: the radius that the images were crafted with; it is checked.
        norm: and their norm.
        batch_size: images per forward pass.
        seed: of the random states inside; a model without randomness in eval mode does not depend on it.
        progress: show a bar on stderr.

    Returns:
        One ``transfer_accuracy`` record per source in [0, 1] with its Wilson interval, ``condition`` being its name: the
        share of all images that the model gets right on the adversarial image, whatever it says of the clean one. Arrays
        by the sources' names, (n,), bool: which are right.

    Raises:
        SparsityError: if an argument, the images, the labels or the model's outputs are not what they should be, or if a
            source's images are not within eps of the clean ones.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> data = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> measured = measure_transfer({"itself": craft(model, data, eps=0.1)}, model, data, eps=0.1)
        >>> [record.chart for record in measured.records]
        ['transfer/accuracy/itself/eps=0.1']
    """
    eps = check_eps("eps", eps, check_norm(norm))
    if not isinstance(sources, Mapping) or not sources:
        raise SparsityError(f"sources={sources!r} names no source: write sources={{'dense': craft(dense, data, ...)}}")
    images, labels = images_and_labels(data)
    for name, adversarial in sources.items():
        _check_source(name, adversarial, images, eps, norm)
    classifier = as_classifier(model)
    targets, n = labels.cpu().long(), len(labels)
    records, arrays = [], {}
    with untouched(classifier, seed):
        for name, adversarial in tqdm(sources.items(), "transfer", disable=not progress, leave=False):
            right = logits_of(classifier, adversarial, labels, batch_size=batch_size).argmax(dim=1) == targets
            detail = f"top-1 on adversarial images crafted on {name} within {eps:.4g} ({norm}), all images counted"
            found: dict[str, Any] = {"norm": norm, "eps": eps, "condition": name, "samples": n, "detail": detail}
            records.append(share_row("transfer_accuracy", int(right.sum()), n, **found))
            arrays[name] = right.numpy()
    return Measured(records, arrays)


def transfer_matrix(
    models: Mapping[str, nn.Module],
    data: Data,
    *,
    eps: float,
    norm: str = "Linf",
    steps: int = 20,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool = False,
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Craft on each model and try on all of them: who shares adversarial images with whom.

    Args:
        models: k models by name, each as that of :func:`craft`.
        data: see :func:`craft`.
        eps: see there.
        norm: see there.
        steps: see there.
        batch_size: see there.
        seed: see there; all sources start from the same points.
        progress: show a bar on stderr.

    Returns:
        The names, and a (k, k) matrix of accuracies in [0, 1]: rows are sources, columns targets. On the diagonal a model
        meets its own attack, and should be at its weakest: where a column is lower elsewhere, its own attack is too weak.

    Raises:
        SparsityError: as :func:`craft`, and if there is no model.

    Example:
        >>> models = {name: nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for name in ("dense", "sparse")}
        >>> data = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> names, accuracy = transfer_matrix(models, data, eps=0.1)
        >>> names, accuracy.shape
        (['dense', 'sparse'], (2, 2))
    """
    if not isinstance(models, Mapping) or not models:
        raise SparsityError(f"models={models!r} names no model: write models={{'dense': dense, 'sparse': sparse}}")
    images, labels = images_and_labels(data)
    both: dict[str, Any] = {"eps": eps, "norm": norm, "batch_size": batch_size, "seed": seed, "progress": progress}
    sources = {name: craft(model, (images, labels), steps=steps, **both) for name, model in models.items()}
    columns = [
        [row.value for row in measure_transfer(sources, model, (images, labels), **both).records]
        for model in models.values()
    ]
    return list(models), np.array(columns).T


def _check_source(name: str, adversarial: Tensor, images: Tensor, eps: float, norm: str) -> None:
    if not isinstance(adversarial, Tensor) or adversarial.shape != images.shape:
        shape = tuple(getattr(adversarial, "shape", ()))
        raise SparsityError(
            f"sources[{name!r}] has shape {shape} and the images {tuple(images.shape)}: craft on the same"
        )
    furthest = float(distance(adversarial.cpu(), images.cpu(), norm).max())
    if not furthest <= eps + tolerance(eps, norm):
        raise SparsityError(
            f"sources[{name!r}] is {furthest:.4g} away from the images ({norm}), more than eps={eps:g}: give the images it "
            "was crafted from, in the same order, and the eps and norm it was crafted with"
        )
