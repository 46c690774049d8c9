"""Attributions: which pixels, or words, a model's score for a class depends on. The methods are captum's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.errors import SparsityError, check_choice, check_seed
from lightning_sparse.extras import need
from lightning_sparse.measure.advice import with_forward
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import as_classifier, batches, check_gradient
from lightning_sparse.measure.explanations.explained import Explained, explained, moves, of_places
from lightning_sparse.measure.explanations.grad_cam import grad_cam
from lightning_sparse.measure.explanations.grad_cam_layer import map_layer

Attribution = Callable[[Explained, Tensor, int], tuple[Tensor, Tensor]]
"""``method(explained, targets, seed) -> (attributions (n, C or 1, H, W), convergence deltas (n,))``."""

_CHUNK = 64  # images at once; captum wants its internal batch to be at least that
_STEPS = 50
_INTERNAL_BATCH = 256
_SAMPLES = 25
_NOISE = 0.15  # standard deviation, as a share of the pixels' range; Smilkov et al. advise 0.1 to 0.2
_SLOPES = ("gradient", "smoothgrad")


def _gradient(at: Explained, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    saliency = need("captum.attr").Saliency(at.forward)
    # requires_grad_ here, because captum warns when it has to set it.
    inputs = at.inputs.requires_grad_(True)
    maps = saliency.attribute(inputs, target=targets, abs=False, additional_forward_args=at.extra or None)
    return maps, _no_deltas(at)


def _integrated_gradients(at: Explained, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    integrated = need("captum.attr").IntegratedGradients(at.forward)
    settings = {"n_steps": _STEPS, "internal_batch_size": _INTERNAL_BATCH, "return_convergence_delta": True}
    start = at.blank.expand_as(at.inputs)
    maps, deltas = integrated.attribute(
        at.inputs, baselines=start, target=targets, additional_forward_args=at.extra or None, **settings
    )
    return maps, deltas


def _smoothgrad(at: Explained, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    # captum's NoiseTunnel draws different noise for each place in the batch. Here all images get the same, so that neither
    # the chunks nor a slight move of an image (max-sensitivity) change anything else.
    noise = moves(at, _SAMPLES, seed, Tensor.normal_, 0.0, _NOISE)
    parts = []
    for part, wanted, *extra in batches(_INTERNAL_BATCH // _SAMPLES, at.inputs.device, at.inputs, targets, *at.extra):
        noisy = (part.unsqueeze(1) + noise).flatten(0, 1)
        repeated = tuple(tensor.repeat_interleave(_SAMPLES, dim=0) for tensor in extra)
        maps, _ = _gradient(at._replace(inputs=noisy, extra=repeated), wanted.repeat_interleave(_SAMPLES), seed)
        parts.append(maps.detach().view(len(part), _SAMPLES, *part.shape[1:]).mean(dim=1))
    return torch.cat(parts), _no_deltas(at)


def _grad_cam(at: Explained, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    return grad_cam(at.forward, at.inputs, targets), _no_deltas(at)


def _no_deltas(at: Explained) -> Tensor:
    return torch.full((len(at.inputs),), float("nan"))


ATTRIBUTIONS: dict[str, Attribution] = {
    "gradient": _gradient,
    "integrated_gradients": _integrated_gradients,
    "smoothgrad": _smoothgrad,
    "grad_cam": _grad_cam,
}
"""All attribution methods by name, each of the target class's logit.

``gradient`` (Simonyan et al. 2014) does not contain the input, so it shows the model; ``integrated_gradients`` (Sundararajan
et al. 2017; zero baseline, 50 steps) sums to the difference between the logits at image and baseline; ``smoothgrad`` (Smilkov
et al. 2017) is the mean gradient of 25 copies of the image with normal noise of standard deviation 0.15; ``grad_cam``
(Selvaraju et al. 2017) is coarser, and only for networks with a layer whose output is a map: see
:func:`~lightning_sparse.measure.explanations.grad_cam_layer.map_layer`.

Of texts the logit is attributed to the vectors of the words. A word's number is the L2 norm of its gradient; in integrated
gradients, whose baseline is the unknown word in every place, the absolute sum over its dimensions. SmoothGrad's noise has a
standard deviation of 0.15 times the size of a component: a vector of noise is 0.15 times as long as the words' vectors are in
the mean. ``grad_cam`` is for images.
"""


def maps_of(
    classifier: nn.Module, images: Tensor, targets: Tensor, method: str, seed: int, layer: str | None = None
) -> tuple[Tensor, Tensor]:
    """Attribute one batch on the classifier's device, inside ``untouched``, as :func:`attribute` does for many."""
    return maps_at(explained(classifier, images.detach()), targets, method, seed, layer)


def maps_at(at: Explained, targets: Tensor, method: str, seed: int, layer: str | None = None) -> tuple[Tensor, Tensor]:
    """Attribute one batch, whatever it consists of. The map of a text is 0 at padding."""
    with torch.enable_grad():
        if layer is None:
            raw, missed = ATTRIBUTIONS[method](at, targets, seed)
        else:
            raw, missed = grad_cam(at.forward, at.inputs, targets, layer), _no_deltas(at)
    raw = raw.detach()
    # The signed components of a gradient in a vector do not add up to anything.
    maps = raw.norm(dim=1) if at.extra and method in _SLOPES else raw.sum(dim=1).abs()
    return maps.float(), missed.detach().float()


def check_method(method: str, layer: str | None) -> None:
    """Refuse a method that does not exist, and a layer for one that has none."""
    check_choice("method", method, ATTRIBUTIONS)
    if layer is not None and method != "grad_cam":
        raise SparsityError(f"layer={layer!r} is for 'grad_cam', and method={method!r} has none: leave layer out")


def check_explainable(
    classifier: nn.Module, images: Tensor, targets: Tensor, methods: Sequence[str], layer: str | None = None
) -> None:
    """Raise a SparsityError before the work if a classifier, inside ``untouched``, cannot be explained by these methods.

    Grad-CAM needs the gradient in a layer; it works where what comes before that layer has none.
    """
    with torch.no_grad():
        (image,) = next(batches(1, device_of(classifier), images))
        classes = classifier(image).shape[1]
    check_images(images, targets, classes)
    if any(method != "grad_cam" for method in methods):
        check_gradient(classifier, images)
    if "grad_cam" in methods:
        try:
            grad_cam(classifier, image, targets[:1].to(image.device, torch.int64), layer)
        except RuntimeError as error:
            if "grad" not in str(error) and "differentiated" not in str(error):
                raise
            # Autograd's, of a graph that does not reach the layer.
            raise SparsityError(
                f"the logits have no gradient in the layer of 'grad_cam' ({error}): leave it out of methods, or write "
                f"{with_forward('...')} with a differentiable path from the layer to the logits"
            ) from error


def attribute(
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
    method: str,
    *,
    seed: int = 0,
    layer: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Attribute each image's logit of its target class to its pixels, or each text's to its words.

    The classifier is left as it was.

    Args:
        classifier: pixels in [0, 1] to logits.
        images: (n, C, H, W), floats in [0, 1]; or texts (n, length), integers, of which 0 is padding and 1 the unknown word.
        targets: (n,), integers in [0, classes).
        method: a name from ``ATTRIBUTIONS``.
        seed: of the noise of ``"smoothgrad"``, which is the same for every image.
        layer: of ``"grad_cam"``: a name of the model's ``named_modules()``, such as ``"blocks.3.norm1"``; its output is
            (n, C, H, W) or tokens (n, tokens, dim). None takes the last convolution with a map, or in a transformer the
            last norm of tokens on which the logits depend.

    Returns:
        Maps (n, H, W), float32 on the CPU: channels summed, then the absolute value; of texts (n, 1, length), NaN at padding,
        see ``ATTRIBUTIONS``. And each image's convergence delta (n,), in logits: how far the attributions' sum misses what it
        should be; NaN for all but ``"integrated_gradients"``, since the others promise no sum.

    Raises:
        SparsityError: if the method does not exist, captum is missing, images or targets fail the checks, the logits have
            no gradient in the pixels, or ``"grad_cam"`` is asked of a model without a suitable layer.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> maps, deltas = attribute(model, torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1]), "gradient")
        >>> maps.shape, bool(deltas.isnan().all())
        (torch.Size([5, 2, 2]), True)
    """
    seed = check_seed(seed)
    check_method(method, layer)
    check_images(images, targets)
    classifier = as_classifier(classifier)
    maps, deltas = [], []
    with untouched(classifier, seed):
        check_explainable(classifier, images, targets, [method], layer)
        if method == "grad_cam":  # chosen once, so that it is the same for all images
            layer = map_layer(classifier, next(batches(1, device_of(classifier), images))[0], layer).name
        for part, wanted in batches(_CHUNK, device_of(classifier), images, targets):
            found, missed = maps_of(classifier, part, wanted, method, seed, layer)
            maps.append(found.cpu())
            deltas.append(missed.cpu())
    return of_places(torch.cat(maps), images), torch.cat(deltas)
