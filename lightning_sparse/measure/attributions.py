"""Attributions: which pixels a model's score for a class depends on. The methods are captum's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_sparse.errors import check_choice
from lightning_sparse.isolation import device_of, untouched
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import batches
from lightning_sparse.measure.extras import need

Attribution = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``method(classifier, images, targets) -> (attributions like images, convergence deltas (n,))``."""

_CHUNK = 64  # images at once; captum wants its internal batch to be at least that
_STEPS = 50
_INTERNAL_BATCH = 256


def _gradient(classifier: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    saliency = need("captum.attr").Saliency(classifier)
    # Asked for here, because captum warns when it has to do it.
    maps: Tensor = saliency.attribute(images.requires_grad_(True), target=targets, abs=False)
    return maps, torch.full((len(images),), float("nan"))


def _integrated_gradients(classifier: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    maps: Tensor
    deltas: Tensor
    maps, deltas = (
        need("captum.attr")
        .IntegratedGradients(classifier)
        .attribute(
            images,
            baselines=0.0,
            target=targets,
            n_steps=_STEPS,
            internal_batch_size=_INTERNAL_BATCH,
            return_convergence_delta=True,
        )
    )
    return maps, deltas


ATTRIBUTIONS: dict[str, Attribution] = {"gradient": _gradient, "integrated_gradients": _integrated_gradients}
"""All attribution methods by name, each of the target class's logit.

``gradient`` (Simonyan et al. 2014) has no input in it, so it shows the model; ``integrated_gradients`` (Sundararajan et
al. 2017; zero baseline, 50 steps) sums to the difference of the logits at image and baseline.
"""


def attribute(classifier: nn.Module, images: Tensor, targets: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """Attribute each image's logit of its target class to its pixels. The classifier is left as it was.

    Args:
        classifier: pixels in [0, 1] to logits.
        images: (n, C, H, W), floats in [0, 1].
        targets: (n,), integers in [0, classes).
        method: a name from ``ATTRIBUTIONS``.

    Returns:
        Maps (n, H, W), float32 on the CPU: channels summed, then the absolute value; and the convergence delta of each
        image (n,), in logits: what the attributions miss of the difference they should sum to, NaN for ``"gradient"``,
        which promises no sum.

    Raises:
        SparsityError: if the method does not exist, captum is missing, or images or targets do not pass the checks.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> maps, deltas = attribute(model, torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1]), "gradient")
        >>> maps.shape, bool(deltas.isnan().all())
        (torch.Size([5, 2, 2]), True)
    """
    run = ATTRIBUTIONS[check_choice("method", method, ATTRIBUTIONS)]
    check_images(images, targets)
    maps, deltas = [], []
    with untouched(classifier):
        for part, wanted in batches(_CHUNK, device_of(classifier), images, targets):
            raw, missed = run(classifier, part, wanted)
            maps.append(raw.detach().sum(dim=1).abs().float().cpu())
            deltas.append(missed.detach().float().cpu())
    return torch.cat(maps), torch.cat(deltas)
