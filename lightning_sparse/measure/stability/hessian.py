"""Curvature of the loss in the weights: the largest eigenvalue of the Hessian, over the connections that live."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from lightning_sparse.anatomy.hessian_product import hessian_product
from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.errors import SparsityError, check_count, check_seed
from lightning_sparse.measure.arrays import check_weight_masks
from lightning_sparse.measure.classifier import as_classifier, batches, logits_of
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.smaller_batches import smaller_batches
from lightning_sparse.results.records import Measured, Record

# Power iteration has settled when the eigenvalue changes by less than the first of these shares of itself and the residual
# is less than the second: between eigenvalues of opposite sign and similar magnitude, the change alone can be tiny.
_CHANGE, _RESIDUAL = 1e-3, 0.1


@smaller_batches
def measure_hessian(
    model: nn.Module,
    data: Data,
    *,
    masks: Mapping[str, Tensor] | None = None,
    iterations: int = 100,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool = False,
) -> Measured:
    """Measure how sharp the minimum is: the eigenvalue of largest magnitude of the loss's Hessian in the weights.

    The loss is the mean cross-entropy over the images, in eval mode. The eigenvalue is found by power iteration with
    products of the Hessian and a vector (Yao et al. 2020, PyHessian, arXiv 1912.07145), from a random vector. All parameters
    are directions, including biases and those of normalisation layers; dead connections are not.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        data: images and labels or a loader, as for :func:`~lightning_sparse.measure.measure_accuracy`. Images that it was
            trained on tell about the minimum that training found; a few hundred are enough to compare models.
        masks: by parameter name, True where a connection lives, such as ``callback.masks``; a parameter without a mask
            lives as a whole. With None, every weight is a direction, even if it is zero.
        iterations: at most so many, each a forward and two backward passes over all images; it ends when the eigenvalue
            changes by less than 0.1 % and the residual is less than a tenth of it, usually after 5 to 30.
        batch_size: images per pass; it does not change the number.
        seed: of the random vector.
        progress: show a bar on stderr.

    Returns:
        One record, ``curvature_hessian_eigenvalue``, in nats per squared unit of weight, negative where the loss curves
        down most. It has no interval over images. Its detail has the residual ``||Hv - value v||``: the Hessian has an
        eigenvalue within that of the value. It also says if the value has not settled: its magnitude is then too low.

    Raises:
        SparsityError: if an argument, the images, the labels or the model's outputs are not what they should be, if no
            connection lives, or if the model has an operation without a second derivative.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> measured = measure_hessian(model, (images, labels))
        >>> [(record.metric, record.n) for record in measured.records]
        [('curvature_hessian_eigenvalue', 6)]
        >>> measured.records[0].value > 0
        True
    """
    seed = check_seed(seed)
    check_count("iterations", iterations, write=100)
    images, labels = images_and_labels(data)
    classifier = as_classifier(model)
    weights, living = _directions(classifier.model, {} if masks is None else masks)
    count, total = sum(int(mask.sum()) for mask in living), sum(mask.numel() for mask in living)
    if count == 0:
        raise SparsityError("masks leave no living connection: give masks under which at least one lives")
    # Fused attention and compiled modules have no second derivative; their plain forms do.
    with untouched(classifier, seed), sdpa_kernel(SDPBackend.MATH), torch.compiler.set_stance("force_eager"):
        logits_of(classifier, images, labels, batch_size=batch_size)
        for weight in weights:
            weight.requires_grad_(True)  # `untouched` restores it

        def product(vector: list[Tensor]) -> list[Tensor]:
            result = [torch.zeros_like(part) for part in vector]
            for part, targets in batches(batch_size, device_of(classifier), images, labels):
                # With a gradient, so that a reentrant checkpoint of the first layer shows in the graph and is refused.
                inputs = part.requires_grad_().clone() if part.is_floating_point() else part
                loss = F.cross_entropy(classifier(inputs), targets, reduction="sum") / len(labels)
                products = hessian_product(loss, weights, vector)
                if products is None:  # cross-entropy is not linear in the logits
                    raise SparsityError(
                        "the gradient of the loss does not depend on the weights: an operation of the model detaches it, or "
                        "its weights do not reach the logits; leave the Hessian out for this model"
                    )
                for whole, more, mask in zip(result, products, living, strict=True):
                    whole += more * mask
            return result

        # Drawn on the CPU, so that every device starts from the same vector.
        vector = [torch.randn(mask.shape).to(mask.device) * mask for mask in living]
        value, residual, done, settled = _power_iteration(product, vector, iterations, progress)
    detail = (
        f"largest eigenvalue in magnitude of the Hessian of the mean cross-entropy in {count} of {total} weights, eval mode, "
        f"float32; {done} power iterations, {'settled' if settled else 'not settled'}, residual {residual:.3g}; seed {seed}"
    )
    n = len(labels)
    return Measured([Record("curvature_hessian_eigenvalue", value, n, samples=done * n, detail=detail)])


def _directions(model: nn.Module, masks: Mapping[str, Tensor]) -> tuple[list[nn.Parameter], list[Tensor]]:
    """The parameters, and for each the mask of its living connections."""
    named = {name: weight for name, weight in model.named_parameters() if weight.is_floating_point()}
    if not named:
        raise SparsityError(f"model={type(model).__name__} has no parameters: there is no weight to curve the loss in")
    check_weight_masks(masks, named)
    living = [
        masks[name].to(weight.device) if name in masks else torch.ones_like(weight, dtype=torch.bool)
        for name, weight in named.items()
    ]
    return list(named.values()), living


def _power_iteration(
    product: Callable[[list[Tensor]], list[Tensor]], vector: list[Tensor], iterations: int, progress: bool
) -> tuple[float, float, int, bool]:
    """Eigenvalue, norm of its residual, iterations done, and whether the eigenvalue has settled."""
    value, residual = float("nan"), float("nan")
    vector = _scaled(vector, 1 / _norm(vector))
    for done in tqdm(range(1, iterations + 1), "Hessian", disable=not progress, leave=False):
        image = product(vector)
        before, value = value, _dot(vector, image)
        residual = _norm([a - value * b for a, b in zip(image, vector, strict=True)])
        length = _norm(image)
        steady = abs(value - before) < _CHANGE * abs(value) and residual < _RESIDUAL * abs(value)
        settled = steady or length == 0
        if settled or done == iterations:
            break
        vector = _scaled(image, 1 / length)
    return value, residual, done, settled


def _dot(a: list[Tensor], b: list[Tensor]) -> float:
    # Added up on the host in double precision, and a device is waited for once.
    products: list[float] = torch.stack([(x * y).sum().to(a[0].device) for x, y in zip(a, b, strict=True)]).tolist()
    return sum(products)


def _norm(vector: list[Tensor]) -> float:
    return math.sqrt(_dot(vector, vector))


def _scaled(vector: list[Tensor], factor: float) -> list[Tensor]:
    return [part * factor for part in vector]
