"""Which layer Grad-CAM explains: one that was named, or the last whose output is a map of the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.checks import check_are_images
from lightning_sparse.measure.classifier import PixelClassifier

_NORMS = (nn.LayerNorm, nn.RMSNorm)


class MapLayer(NamedTuple):
    """A layer and how its output is a map.

    Attributes:
        name: in the model, as in ``named_modules()``.
        module: the layer.
        grid: height and width of the map.
        leading: tokens before those of the map (class, registers); None for an output (n, C, H, W), whose channels do not
            come last.
    """

    name: str
    module: nn.Module
    grid: tuple[int, int]
    leading: int | None


def map_layer(classifier: nn.Module, image: Tensor, name: str | None = None) -> MapLayer:
    """Find the layer for Grad-CAM, for a classifier in eval mode and an image (1, C, H, W).

    Without a name it is the last ``nn.Conv2d`` that gives a map of at least 2x2; in a transformer, whose tokens come after
    its convolutions, the last norm whose tokens lie on a grid and on whose grid the logits depend: the last block's first
    one where a class token is read. Each has to run exactly once in a forward pass, or it cannot be said which of several
    calls is explained.

    Raises:
        SparsityError: if there is no such layer, or the one named does not exist, runs other than once, or gives no map; and
            for a text.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 10))
        >>> map_layer(net, torch.rand(1, 1, 5, 5))[:3]
        ('0', Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1)), (3, 3))
    """
    check_are_images(image, "maps of 'grad_cam'")
    named = dict(_model_of(classifier).named_modules())
    if name is not None and (not isinstance(name, str) or name not in named or not name):
        close = get_close_matches(str(name), [known for known in named if known], n=3, cutoff=0.4)
        guess = f"did you mean {', '.join(map(repr, close))}?" if close else "print(model) shows them"
        raise SparsityError(f"layer={name!r} is no layer of the model: {guess} (names are those of named_modules())")
    kinds = (nn.Conv2d, *_NORMS)
    watched = [(key, module) for key, module in named.items() if (key == name if name else isinstance(module, kinds))]
    with watching([module for _, module in watched]) as ran, torch.enable_grad():
        logits = classifier(image.detach().clone().requires_grad_(True))
    names = {id(module): key for key, module in watched}
    calls = [id(module) for module, _ in ran]
    found: list[tuple[MapLayer, Tensor]] = []
    for module, output in ran:
        shape = _grid_of(module, output, image)
        if shape is not None and calls.count(id(module)) == 1:
            found.append((MapLayer(names[id(module)], module, *shape), output))
    if name is not None:
        if not found:
            _refuse_named(name, ran)
        return found[0][0]
    convolutions = sum(isinstance(module, nn.Conv2d) for module, _ in ran)
    # Norms with channels last on (n, H, W, C) are those of a Swin, whose only convolution embeds patches, or a ConvNeXt's.
    if found and found[-1][0].leading is not None and (found[-1][1].dim() == 3 or convolutions == 1):
        return _last_that_counts(found, logits)
    for layer, _ in reversed(found):
        if isinstance(layer.module, nn.Conv2d):
            return layer
    sizes = ", ".join("x".join(map(str, output.shape[2:])) for module, output in ran if isinstance(module, nn.Conv2d))
    what = f"its convolutions give maps of {sizes}" if sizes else "it has no nn.Conv2d that runs"
    raise SparsityError(
        f"method='grad_cam' needs a convolution that runs once and gives a map of 2x2 or more, and {what}: "
        "leave it out of methods, or write layer= with the name of a layer that gives a map"
    )


def _last_that_counts(found: list[tuple[MapLayer, Tensor]], logits: Tensor) -> MapLayer:
    """The last norm of tokens on whose grid the logits depend; the very last where none does, as in a dead network."""
    tokens = [(layer, output) for layer, output in found if layer.leading is not None and output.requires_grad]
    if logits.requires_grad and tokens:
        outputs = [output for _, output in tokens]
        gradients = torch.autograd.grad(logits.abs().sum(), outputs, allow_unused=True)
        for (layer, _), gradient in reversed(list(zip(tokens, gradients, strict=True))):
            if gradient is not None and bool(gradient[:, layer.leading :].any()):
                return layer
    return found[-1][0]


def _refuse_named(name: str, ran: Sequence[tuple[nn.Module, Any]]) -> None:
    if len(ran) != 1:
        times = f"runs {len(ran)} times" if ran else "does not run"
        raise SparsityError(
            f"layer={name!r} {times} in a forward pass, and Grad-CAM needs one that runs once: name another"
        )
    shape = tuple(ran[0][1].shape) if isinstance(ran[0][1], Tensor) else type(ran[0][1]).__name__
    raise SparsityError(
        f"layer={name!r} gives {shape}, which is no map of the image: name a layer that gives (n, C, H, W) of 2x2 or more, "
        "or tokens (n, tokens, dim) that lie on a grid of the image's shape after at most 8 leading ones"
    )


def _grid_of(module: nn.Module, output: Any, image: Tensor) -> tuple[tuple[int, int], int | None] | None:
    """Height and width of a layer's map, and its leading tokens; None if it gives no map of 2x2 or more."""
    if not isinstance(output, Tensor) or not output.is_floating_point() or len(output) != 1:
        return None
    if output.dim() == 4:
        last = type(module) in _NORMS or isinstance(module, nn.Linear)
        height, width = output.shape[1:3] if last else output.shape[2:]
        return ((height, width), 0 if last else None) if min(height, width) >= 2 else None
    if output.dim() != 3:
        return None
    high, wide = image.shape[2:]
    for leading in range(min(9, output.shape[1])):
        tokens = output.shape[1] - leading
        height = round((tokens * high / wide) ** 0.5)
        width = tokens // height if height else 0
        if min(height, width) >= 2 and height * width == tokens and height * wide == width * high:
            return (height, width), leading
    return None


@contextmanager
def watching(modules: Sequence[nn.Module]) -> Iterator[list[tuple[nn.Module, Any]]]:
    """Keep what these modules give inside this context, call by call."""
    ran: list[tuple[nn.Module, Any]] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        ran.append((module, output))

    handles = [module.register_forward_hook(note) for module in modules]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def _model_of(classifier: nn.Module) -> nn.Module:
    return classifier.model if isinstance(classifier, PixelClassifier) else classifier
