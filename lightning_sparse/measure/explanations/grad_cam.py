"""Grad-CAM, on a layer of a convolutional network or of a vision transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_sparse.extras import need
from lightning_sparse.measure.explanations.grad_cam_layer import MapLayer, map_layer, watching


def grad_cam(classifier: nn.Module, images: Tensor, targets: Tensor, layer: str | None = None) -> Tensor:
    """Compute Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) of the target class's logit.

    The layer's channels are summed, each weighted by the mean of its gradient; negative sums become zero; the coarse map is
    stretched to the image (bilinear). Tokens (n, tokens, dim) are such a map once those of the class and of registers are
    left out. The classifier is inside ``untouched``, the images (n, C, H, W) are on its device. The maps are (n, 1, H, W),
    at least 0. ``layer`` is a name of ``named_modules()``; None chooses one
    (:func:`~lightning_sparse.measure.explanations.grad_cam_layer.map_layer`).

    Raises:
        SparsityError: if there is no suitable layer, or captum is missing.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10))
        >>> grad_cam(net, torch.rand(6, 1, 4, 4), torch.zeros(6, dtype=torch.long)).shape
        torch.Size([6, 1, 4, 4])
    """
    attr = need("captum.attr")
    chosen = map_layer(classifier, images[:1], layer)
    # The input needs a gradient, or there is no graph to the layer where the parameters ask for none.
    images = images.requires_grad_(True)
    if chosen.leading is None:
        coarse: Tensor = attr.LayerGradCam(classifier, chosen.module).attribute(
            images, target=targets, relu_attributions=True
        )
    else:
        coarse = _of_tokens(classifier, images, targets, chosen)
    stretched: Tensor = attr.LayerAttribution.interpolate(
        coarse.detach(), tuple(images.shape[2:]), interpolate_mode="bilinear"
    )
    return stretched


def _of_tokens(classifier: nn.Module, images: Tensor, targets: Tensor, layer: MapLayer) -> Tensor:
    """What captum's LayerGradCam does with (n, C, H, W), where channels come last: (n, tokens, dim) or (n, H, W, C)."""
    with watching([layer.module]) as ran:
        logits: Tensor = classifier(images)
    output: Tensor = ran[0][1]
    (gradient,) = torch.autograd.grad(logits.gather(1, targets.unsqueeze(1)).sum(), output)
    tokens, slopes = (tensor.flatten(1, -2)[:, layer.leading :] for tensor in (output, gradient))
    summed: Tensor = (slopes.mean(dim=1, keepdim=True) * tokens).sum(dim=2).relu()
    return summed.view(len(images), 1, *layer.grid)
