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
from lightning_sparse.measure.explanations.attributions import check_explainable, check_method, maps_at
from lightning_sparse.measure.explanations.explained import Explained, explained, moves

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
    clipped to [0, 1]. Of a text it is the vectors of the words that move, within 0.02 of the size of a component.

    Args:
        classifier: pixels in [0, 1] to logits; it is left as it was.
        images: (n, C, H, W), floats in [0, 1]; or texts (n, length), integers.
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
    found = []
    with untouched(classifier, seed):
        check_explainable(classifier, images, targets, [method], layer)
        for part, wanted in batches(_ROWS // SAMPLES, device_of(classifier), images, targets):
            found.append(_of_batch(explained(classifier, part), wanted, method, seed, layer).cpu())
    return torch.cat(found).numpy()


def _of_batch(at: Explained, targets: Tensor, method: str, seed: int, layer: str | None) -> Tensor:
    shifts = moves(at, SAMPLES, seed + 1, Tensor.uniform_, -RADIUS, RADIUS)

    def explain(inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
        # captum gives the images in a tuple and their moved copies, each image's next to each other, without one, and expects
        # a tuple back.
        given = inputs[0] if isinstance(inputs, tuple) else inputs
        times = len(given) // len(targets)
        target, *extra = (each.repeat_interleave(times, dim=0) for each in (targets, *at.extra))
        return (maps_at(at._replace(inputs=given, extra=tuple(extra)), target, method, seed, layer)[0],)

    def moved(inputs: Tensor, radius: float) -> Tensor:
        return inputs + shifts.repeat(len(inputs) // SAMPLES, 1, 1, 1)

    largest: Tensor = need("captum.metrics").sensitivity_max(explain, at.inputs, moved, RADIUS, SAMPLES)
    # captum divides by 1 where a map is zero.
    zero = explain(at.inputs)[0].flatten(1).amax(dim=1) == 0
    return largest.double().masked_fill(zero, float("nan"))
