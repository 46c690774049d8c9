"""Whether models share their adversarial images: crafted on one model, tried on another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.errors import SparsityError, check_count, check_seed
from lightning_sparse.measure.checks import check_are_images
from lightning_sparse.measure.classifier import as_classifier, batches, check_gradient, logits_of
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.robustness.balls import check_eps, distance, tolerance
from lightning_sparse.measure.robustness.pgd import pgd
from lightning_sparse.measure.rows import share_row
from lightning_sparse.measure.smaller_batches import smaller_batches
from lightning_sparse.results.records import Measured


@smaller_batches
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
    """Craft an adversarial image of every image, by PGD on the logit margin (Madry et al. 2018), to try on other models.

    All images are attacked for all steps, also those that are wrong or broken already, and the last point is kept: a point
    just across this model's decision boundary is seldom across another's.

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
    seed = check_seed(seed)
    eps, steps = check_eps("eps", eps, norm), check_count("steps", steps, write=20)
    images, labels = images_and_labels(data)
    check_are_images(images, "transferred attacks")
    classifier = as_classifier(model)
    crafted = []
    with untouched(classifier, seed):
        logits_of(classifier, images, labels, batch_size=batch_size)
        check_gradient(classifier, images)
        with tqdm(total=len(labels), desc="crafting", disable=not progress, leave=False) as bar:
            for part, targets in batches(batch_size, device_of(classifier), images, labels):
                adversarial, _ = pgd(
                    classifier, part, targets, eps=eps, norm=norm, steps=steps, loss="margin", keep_broken=True
                )
                crafted.append(adversarial.detach().cpu())
                bar.update(len(part))
    return torch.cat(crafted)


@smaller_batches
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
        sources: by name of the source model, what :func:`craft` made with it from the images of ``data``.
        model: the target, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        data: the clean images and their labels, or a loader of them, in the same order.
        eps: the radius that the images were crafted with; it is checked.
        norm: their norm, likewise.
        batch_size: images per forward pass.
        seed: of the random states inside; it matters only to a model that is random in eval mode.
        progress: show a bar on stderr.

    Returns:
        One ``transfer_accuracy`` record per source, named in ``condition``, with its Wilson interval: the share of all
        images, in [0, 1], that the model gets right as adversarial images, whether or not it is right on the clean ones.
        Arrays by the sources' names, (n,), bool: which are right.

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
    seed = check_seed(seed)
    eps = check_eps("eps", eps, norm)
    if not isinstance(sources, Mapping) or not sources:
        raise SparsityError(f"sources={sources!r} names no source: write sources={{'dense': craft(dense, data, ...)}}")
    images, labels = images_and_labels(data)
    check_are_images(images, "transferred attacks")
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
