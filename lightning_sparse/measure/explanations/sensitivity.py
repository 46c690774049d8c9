"""Max-sensitivity: how much does a map change when the image hardly changes?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.errors import check_seed
from lightning_sparse.extras import need
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import as_classifier, batches
from lightning_sparse.measure.explanations.attributions import check_explainable, check_method, maps_of

RADIUS = 0.02  # of the pixels' range
SAMPLES = 10
_ROWS = 256  # moved images at once


def max_sensitivity(
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
    method: str,
    *,
    seed: int = 0,
    layer: str | None = None,
) -> npt.NDArray[np.float64]:
    """Measure the largest relative change of each map under ten small random moves of its image.

    ``max_k ||a(x + d_k) - a(x)|| / ||a(x)||`` (Yeh et al. 2019, arXiv 1901.09392), with L2 norms, each ``d_k`` uniform
    within 0.02 of every pixel, and the target class kept. It is a lower bound on what an attacker could do to the map. All
    images and models get the same ten moves, so that luck makes no difference between two models. The moved images are not
    clipped to [0, 1].

    Args:
        classifier: pixels in [0, 1] to logits; it is left as it was.
        images: (n, C, H, W), floats in [0, 1].
        targets: (n,), integers in [0, classes).
        method: a name from :data:`~lightning_sparse.measure.ATTRIBUTIONS`. The maps are those of
            :func:`~lightning_sparse.measure.attribute`: channels summed, absolute.
        seed: of SmoothGrad's noise, the same for every move; ``seed + 1`` draws the moves.
        layer: of ``"grad_cam"``, see :func:`~lightning_sparse.measure.attribute`.

    Returns:
        (n,), at least 0; NaN where the map of the unmoved image is zero.

    Raises:
        SparsityError: as :func:`~lightning_sparse.measure.attribute`.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))  # a linear model's gradient is the same everywhere
        >>> max_sensitivity(model, torch.rand(2, 1, 2, 2), torch.tensor([0, 2]), "gradient")
        array([0., 0.])
    """
    seed = check_seed(seed)
    check_method(method, layer)
    check_images(images, targets)
    classifier = as_classifier(classifier)
    moves = torch.empty(SAMPLES, *images.shape[1:]).uniform_(
        -RADIUS, RADIUS, generator=torch.Generator().manual_seed(seed + 1)
    )
    sensitivity_max = need("captum.metrics").sensitivity_max
    found = []
    with untouched(classifier, seed):
        check_explainable(classifier, images, targets, [method], layer)
        device = device_of(classifier)
        moves = moves.to(device)

        def explain(inputs: Tensor | tuple[Tensor, ...], target: Tensor) -> tuple[Tensor]:
            # captum gives the images in a tuple and their moved copies without one, and expects a tuple back. It does not
            # repeat a single target.
            part = inputs[0] if isinstance(inputs, tuple) else inputs
            target = target.expand(len(part)) if len(target) == 1 else target
            return (maps_of(classifier, part, target, method, seed, layer)[0],)

        def moved(inputs: Tensor, radius: float) -> Tensor:
            # captum has put the copies of one image next to each other.
            return inputs + moves.repeat(len(inputs) // SAMPLES, 1, 1, 1)

        for part, wanted in batches(_ROWS // SAMPLES, device, images, targets):
            largest: Tensor = sensitivity_max(explain, part, moved, RADIUS, SAMPLES, target=wanted)
            # captum divides by 1 where a map is zero.
            zero = explain(part, wanted)[0].flatten(1).amax(dim=1) == 0
            found.append(largest.double().masked_fill(zero, float("nan")).cpu())
    return torch.cat(found).numpy()
