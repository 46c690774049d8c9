"""What layers read: how many of their inputs are zero, how evenly units are used, and what living weights times them cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.anatomy.layer_calls import CallRecorder
from lightning_sparse.anatomy.layers import is_conv1d, is_layer, outputs_and_inputs
from lightning_sparse.anatomy.living import living_of
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.arrays import check_weight_masks
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import as_classifier, batches
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.rows import mean_row
from lightning_sparse.measure.smaller_batches import smaller_batches
from lightning_sparse.results.records import Measured, Record


@dataclass
class _Layer:
    """What one layer has read: per image, shares of inputs; per unit, how many inputs and how many of them not zero."""

    units: int
    conv: bool
    natural: list[Tensor] = field(default_factory=list)
    forced: list[Tensor] = field(default_factory=list)
    active: Tensor | None = None
    read: int = 0

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.natural.append(self._zeros(inputs[0]))

    def after(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0].detach()
        self.forced.append(self._zeros(x))
        by_unit = (x != 0).movedim(1 if self.conv else -1, 0).reshape(self.units, -1)
        active = by_unit.sum(dim=1).double().cpu()
        self.active = active if self.active is None else self.active + active
        self.read += by_unit.shape[1]

    @staticmethod
    def _zeros(x: Tensor) -> Tensor:
        return (x.detach() == 0).flatten(1).double().mean(dim=1).cpu()


@smaller_batches
def measure_activations(
    model: nn.Module, data: Data, *, masks: Mapping[str, Tensor] | None = None, batch_size: int = 256
) -> Measured:
    """Measure what Linear and Conv layers read in eval mode, with whatever selects activations and without.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        data: ``(images, labels)``, or a loader; the labels are not used.
        masks: by parameter name, True where a connection lives; None takes zeros of the weights as dead.
        batch_size: images per forward pass.

    Returns:
        Records, for each layer with the name of its weight in ``condition``: ``activation_sparsity``, the share of the inputs
        that are zero as the layer reads them, and ``activation_sparsity_natural``, before anything is selected, in [0, 1];
        ``activation_duty_entropy``, the mean over units of the binary entropy of how often a unit is read, as a share of that
        of the mean (1: all are read equally often; NaN if all or none always are); ``activation_dead_units``, the share of
        units that are zero in every image. And ``cost_flops_joint``, FLOPs of one image if every dead weight and every zero
        input is skipped: of each layer, and in ``condition=""`` of all that can be seen. No arrays.

    Raises:
        SparsityError: if an argument is not what it should be, or no layer can be seen.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> images = torch.tensor([[1.0, 0, 0, 0], [1.0, 1.0, 0, 0]]).view(2, 1, 2, 2)
        >>> found = measure_activations(net, (images, torch.zeros(2, dtype=torch.long)))
        >>> for row in found.records:
        ...     print(row.metric, row.condition, round(row.value, 3))
        activation_sparsity 1.weight 0.625
        activation_sparsity_natural 1.weight 0.625
        activation_duty_entropy 1.weight 0.262
        activation_dead_units 1.weight 0.5
        cost_flops_joint 1.weight 6.0
        cost_flops_joint  6.0
    """
    images, labels = images_and_labels(data)
    check_images(images, labels)
    classifier = as_classifier(model)
    model = classifier.model
    check_weight_masks(masks, dict(model.named_parameters()))
    living = {name: alive for name, (_, alive) in living_of(model, masks).items()}
    layers, names = {}, {}
    handles = []
    for path, module in model.named_modules():
        if is_layer(module):
            name = f"{path}.weight".removeprefix(".")
            names[name] = module
            layers[name] = layer = _Layer(outputs_and_inputs(module)[1], isinstance(module, _ConvNd))
            handles.append(module.register_forward_pre_hook(layer.before, prepend=True))
            handles.append(module.register_forward_pre_hook(layer.after))
    eager = torch.compiler.set_stance("force_eager")  # calls inside a compiled graph cannot be seen
    try:
        with untouched(classifier), torch.no_grad(), eager, CallRecorder(model) as recorder:
            for (part,) in batches(batch_size, device_of(classifier), images):
                classifier(part)
    finally:
        for handle in handles:
            handle.remove()
    dense = dict.fromkeys(layers, 0.0)
    for call in recorder.calls:
        if call.name in dense:
            dense[call.name] += call.flops / len(images)
    rows: list[Record] = []
    for name, layer in layers.items():
        if layer.active is not None and layer.read:
            rows += _rows(name, layer, _share(names[name], layer, living.get(name)) * dense[name])
    if not rows:
        raise SparsityError(f"{type(model).__name__} calls no Linear or Conv layer: there is nothing to look at")
    joint = [row.value for row in rows if row.metric == "cost_flops_joint"]
    detail = (
        f"of one image, living weights times inputs that are not zero, {len(joint)} layers; no dense kernel saves them"
    )
    return Measured([*rows, Record("cost_flops_joint", sum(joint), len(images), detail=detail)])


def _rows(name: str, layer: _Layer, flops: float) -> list[Record]:
    assert layer.active is not None
    duty = (layer.active / layer.read).numpy()
    even = _entropy(np.array([duty.mean()]))[0]
    about = f"inputs of {name}, over {layer.units} units"
    forced, natural = (torch.cat(shares).numpy() for shares in (layer.forced, layer.natural))
    entropy = float(_entropy(duty).mean() / even) if even else math.nan
    return [
        mean_row(
            "activation_sparsity", forced, condition=name, detail=f"share of zeros among the {about}, as it reads them"
        ),
        mean_row("activation_sparsity_natural", natural, condition=name, detail="the same before anything is selected"),
        Record("activation_duty_entropy", entropy, len(forced), condition=name, detail=f"of the {about}"),
        Record(
            "activation_dead_units", float((duty == 0).mean()), len(forced), condition=name, detail=f"of the {about}"
        ),
        Record(
            "cost_flops_joint",
            flops,
            len(forced),
            condition=name,
            detail="living weights times inputs that are not zero",
        ),
    ]


def _share(module: Any, layer: _Layer, alive: Tensor | None) -> float:
    """The share of the dense products whose weight lives and whose input is not zero."""
    assert layer.active is not None
    duty = layer.active / layer.read
    if alive is None:
        return float(duty.mean())
    alive = alive.detach().double().cpu()
    if isinstance(module, _ConvNd) and not module.transposed:  # (outputs, inputs of a group, ...)
        by_group = alive.reshape(module.groups, module.out_channels // module.groups, -1, *alive.shape[2:])
        by_unit = by_group.flatten(3).sum(dim=(1, 3)).flatten()
    elif isinstance(module, _ConvNd) or is_conv1d(module):  # (inputs, ...)
        by_unit = alive.flatten(1).sum(dim=1)
    else:
        by_unit = alive.sum(dim=0)
    return float((by_unit * duty).sum() / alive.numel())


def _entropy(share: np.ndarray[Any, np.dtype[np.floating[Any]]]) -> Any:
    """Of a coin, in bits."""
    inside = np.clip(share, 1e-300, 1.0)
    other = np.clip(1 - share, 1e-300, 1.0)
    return -(inside * np.log2(inside) + other * np.log2(other))
