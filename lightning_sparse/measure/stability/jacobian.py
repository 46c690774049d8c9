"""How steep the logits are in the pixels: the norm of each image's Jacobian, as it is and without the logits' scale."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.errors import check_seed
from lightning_sparse.measure.calibration import temperature_of
from lightning_sparse.measure.checks import check_are_images
from lightning_sparse.measure.classifier import as_classifier, batches, check_gradient, logits_of
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.rows import mean_row
from lightning_sparse.measure.smaller_batches import smaller_batches
from lightning_sparse.results.records import Measured


@smaller_batches
def measure_jacobian(
    model: nn.Module,
    data: Data,
    *,
    calibration: Data | None = None,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool = False,
) -> Measured:
    """Measure the Frobenius norm of d logits / d pixels at each image (Hoffman et al. 2019, arXiv 1908.02729).

    To first order, a change of the pixels of L2 length r moves the logits by at most r times this norm. Logits times 10
    have ten times the norm and the same decisions, so the norm alone says little about robustness; divided by the
    temperature that calibrates the model, it does not depend on that scale.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        data: images and labels or a loader, as for :func:`~lightning_sparse.measure.measure_accuracy`.
        calibration: images and labels to fit the temperature on, best neither measured nor trained on; None fits it on the
            measured ones.
        batch_size: images per forward pass, followed by one backward pass per class; it does not change the number.
        seed: of the random states inside; it matters only for a model that is random in eval mode.
        progress: show a bar on stderr.

    Returns:
        Two records, means over images with normal intervals: ``curvature_jacobian_norm`` in logits per unit of [0, 1]
        pixels, and ``curvature_jacobian_norm_calibrated``, the same of logits divided by the temperature. Array
        ``jacobian_norm`` (n,), float32: of the logits as they are.

    Raises:
        SparsityError: if images, labels or the model's outputs are not what they should be, or if the logits have no
            gradient in the pixels.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
        >>> images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> measured = measure_jacobian(model, (images, labels))
        >>> np.allclose(measured.arrays["jacobian_norm"], model[1].weight.norm().item())
        True
    """
    seed = check_seed(seed)
    images, labels = images_and_labels(data)
    check_are_images(images, "the Jacobian's directions")
    classifier = as_classifier(model)
    # Compiled modules run eagerly: their backward pass can run only once, and there is one for each class.
    with untouched(classifier, seed), torch.compiler.set_stance("force_eager"):
        logits = logits_of(classifier, images, labels, batch_size=batch_size)
        check_gradient(classifier, images)
        temperature, source = temperature_of(classifier, logits, labels, calibration, batch_size)
        norms = []
        with tqdm(total=len(images), desc="Jacobian", disable=not progress, leave=False) as bar:
            for (part,) in batches(batch_size, device_of(classifier), images):
                norms.append(_norms(classifier, part))
                bar.update(len(part))
    values = torch.cat(norms).numpy()
    flat = int((values == 0).sum())
    what = f"mean Frobenius norm of d logits / d pixels, eval mode; exactly 0 for {flat} of {len(values)} images"
    calibrated = f"{what}; logits divided by temperature {temperature:.4g} fitted on {source}"
    records = [
        mean_row("curvature_jacobian_norm", values, detail=what),
        mean_row("curvature_jacobian_norm_calibrated", values / temperature, detail=calibrated),
    ]
    return Measured(records, {"jacobian_norm": values.astype(np.float32)})


def _norms(classifier: nn.Module, images: Tensor) -> Tensor:
    """Frobenius norm of each image's Jacobian (n,), float64 on the CPU."""
    pixels = images.requires_grad_(True)
    # A copy, because a model may write into its input. One backward pass per class is faster than torch's batched ones
    # (0.4 s against 0.7 s of CPU for 128 images of 28x28), takes every kind of module, and holds one gradient at a time.
    logits = classifier(pixels.clone())
    squares = torch.zeros(len(images), dtype=torch.float64)
    for of_class in logits.unbind(dim=1):
        (gradient,) = torch.autograd.grad(of_class.sum(), pixels, retain_graph=True)
        squares += gradient.flatten(1).square().sum(dim=1).cpu().double()
    return squares.sqrt()
