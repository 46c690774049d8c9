"""What became smaller in a network, and what it costs before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import nn

from lightning_sparse.anatomy.channel_groups import call
from lightning_sparse.anatomy.isolation import as_it_was
from lightning_sparse.anatomy.layer_calls import CallRecorder
from lightning_sparse.export.example import cloned
from lightning_sparse.results.text_table import text_table


@dataclass(frozen=True)
class ShrunkLayer:
    """A layer before and after.

    Attributes:
        name: of its weight.
        before: shape of the weight.
        after: the same, of the smaller network.
        flops_before: of one forward pass on the example, two a multiply-add.
        flops_after: the same, of the smaller network.
    """

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    flops_before: int
    flops_after: int


@dataclass(frozen=True)
class Shrunk:
    """A smaller network, and what is smaller in it.

    Attributes:
        model: an ordinary module of the same class, trainable.
        layers: its layers with a weight, in the order of its parameters.
        left: by a layer's name, how many of its dead units are still there, and why.
    """

    model: nn.Module
    layers: tuple[ShrunkLayer, ...]
    left: Mapping[str, str]

    def table(self) -> str:
        """The layers as a table in text, and what was left."""
        cells = [("layer", "weight before", "after", "MFLOPs before", "after")]
        rows = [*self.layers, _total(self.layers)]
        cells += [
            (r.name, _shape(r.before), _shape(r.after), _mega(r.flops_before), _mega(r.flops_after)) for r in rows
        ]
        return "\n".join([text_table(cells, "<<<>>"), *(f"left: {name}: {why}" for name, why in self.left.items())])


def before_and_after(model: nn.Module, small: nn.Module, example: Any) -> Iterator[ShrunkLayer]:
    """Each layer with a weight, in the order of the parameters; both networks are run on the example in eval mode."""
    flops = []
    for net in (model, small):
        with as_it_was(net), CallRecorder(net) as recorder:
            net.eval()
            call(net, cloned(example))
        counted: Counter[str] = Counter()
        for made in recorder.calls:
            counted[made.name] += made.flops
        flops.append(counted)
    after = dict(small.named_parameters())
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            yield ShrunkLayer(name, tuple(weight.shape), tuple(after[name].shape), flops[0][name], flops[1][name])


def _total(layers: Sequence[ShrunkLayer]) -> ShrunkLayer:
    before, after = (sum(prod(getattr(layer, side)) for layer in layers) for side in ("before", "after"))
    return ShrunkLayer(
        "total", (before,), (after,), sum(r.flops_before for r in layers), sum(r.flops_after for r in layers)
    )


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _mega(flops: int) -> str:
    return f"{flops / 1e6:.3f}"
