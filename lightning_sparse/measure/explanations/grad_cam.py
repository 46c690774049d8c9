"""Grad-CAM, and whether a model has a convolution whose map shows anything."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import need


def grad_cam_layer(classifier: nn.Module, image: Tensor) -> nn.Module:
    """Find the last ``nn.Conv2d`` that gives a map of at least 2x2, for a classifier in eval mode and an image (1, C, H, W).

    Raises:
        SparsityError: if there is none, or none that runs exactly once in a forward pass (captum cannot say which of several
            calls it attributes to).

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 10))
        >>> grad_cam_layer(net, torch.rand(1, 1, 5, 5))
        Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1))
    """
    ran: list[tuple[nn.Module, tuple[int, ...]]] = []

    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        ran.append((module, tuple(output.shape[2:])))

    handles = [module.register_forward_hook(note) for module in classifier.modules() if isinstance(module, nn.Conv2d)]
    try:
        with torch.no_grad():
            classifier(image)
    finally:
        for handle in handles:
            handle.remove()
    calls = [id(module) for module, _ in ran]
    for module, size in reversed(ran):
        if min(size) >= 2 and calls.count(id(module)) == 1:
            return module
    sizes = ", ".join(f"{height}x{width}" for _, (height, width) in ran)
    found = f"its convolutions give maps of {sizes}" if ran else "it has no nn.Conv2d that runs"
    raise SparsityError(
        f"method='grad_cam' needs a convolution that runs once and gives a map of 2x2 or more, and {found}: "
        "leave it out of methods"
    )


def grad_cam(classifier: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Compute Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) of the target class's logit.

    The layer's channels are summed, each weighted by the mean of its gradient; negative sums become zero; the coarse map is
    stretched to the image (bilinear). The classifier is inside ``untouched``, the images (n, C, H, W) are on its device. The
    maps are (n, 1, H, W), at least 0.

    Raises:
        SparsityError: as :func:`grad_cam_layer`, or if captum is missing.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10))
        >>> grad_cam(net, torch.rand(6, 1, 4, 4), torch.zeros(6, dtype=torch.long)).shape
        torch.Size([6, 1, 4, 4])
    """
    attr = need("captum.attr")
    layer = grad_cam_layer(classifier, images[:1])
    # The input needs a gradient, or there is no graph to the layer where the parameters ask for none.
    coarse: Tensor = attr.LayerGradCam(classifier, layer).attribute(
        images.requires_grad_(True), target=targets, relu_attributions=True
    )
    stretched: Tensor = attr.LayerAttribution.interpolate(
        coarse.detach(), tuple(images.shape[2:]), interpolate_mode="bilinear"
    )
    return stretched
