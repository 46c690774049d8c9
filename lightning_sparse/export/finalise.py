"""The one door: every way to make a sparse network fast, timed side by side, and the fastest returned."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.copies import copied
from lightning_sparse.anatomy.isolation import device_of
from lightning_sparse.anatomy.living import living_of
from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.errors import SparsityError, check_choice, in_short
from lightning_sparse.export.comparing import Run
from lightning_sparse.export.example import as_arguments, of_size
from lightning_sparse.export.shrink import shrink
from lightning_sparse.export.sparsify import sparsify
from lightning_sparse.measure.arrays import check_weight_masks
from lightning_sparse.measure.description.race import check_seconds, race, speedup
from lightning_sparse.results.text_table import text_table

Make = Callable[[nn.Module, Any, float], nn.Module]
FORMS: dict[str, Make] = {
    "dense": lambda model, example, seconds: model,
    "shrunk": lambda model, example, seconds: shrink(model, example).model,
    "sparse": lambda model, example, seconds: sparsify(model, example, seconds=seconds).model,
    "shrunk and sparse": lambda model, example, seconds: (
        sparsify(shrink(model, example).model, example, seconds=seconds).model
    ),
}
"""By name, what is tried: functions from a copy of the network, its example and the seconds for timing to a module."""


@dataclass(frozen=True)
class Finalised:
    """The fastest form of a network, and how fast each was.

    Attributes:
        model: in eval mode; it shares nothing with the one given.
        form: its name, one of ``"dense"``, ``"shrunk"``, ``"sparse"`` and ``"shrunk and sparse"``.
        speedups: by form, how many times as fast as the dense network; the median over rounds.
        noise: the same of a second copy of the dense network, 1 on a quiet machine.
        dense_ms: milliseconds of the dense network on the example.
        failed: by form that could not be made: why.
    """

    model: nn.Module
    form: str
    speedups: Mapping[str, float]
    noise: float
    dense_ms: float
    failed: Mapping[str, str]

    def table(self) -> str:
        """The forms as a table in text, the one that was chosen marked, and what could not be made."""
        rows = [("form", "x dense", "ms", "")]
        for form, speed in self.speedups.items():
            rows.append((form, f"{speed:.2f}", f"{self.dense_ms / speed:.3f}", "chosen" if form == self.form else ""))
        rows.append(("dense again (noise)", f"{self.noise:.2f}", f"{self.dense_ms / self.noise:.3f}", ""))
        return "\n".join([text_table(rows, "<>><"), *(f"not made: {form}: {why}" for form, why in self.failed.items())])


def finalise(
    model: nn.Module,
    masks: Mapping[str, Tensor] | None,
    example: Any,
    to: str = "auto",
    *,
    seconds: float = 2.0,
) -> Finalised:
    """Try every form of a sparse network on this machine, and return the fastest; never one slower than dense.

    Tried are the network without its dead units (:func:`~lightning_sparse.export.shrink`), with sparse linear layers
    (:func:`~lightning_sparse.export.sparsify`; on a GPU 2:4 too), and both. A form is chosen if it is faster than dense by
    more than the noise of the run. What is fastest depends on the machine, the batch size and the number of threads, so
    give an example of the size that the network will be used with.

    Args:
        model: any module whose example is a tensor, or a tuple of tensors; it is left as it was.
        masks: by parameter name, True where a connection lives; None takes zeros as dead. They are only compared with the
            weights.
        example: a batch (n, ...), or a tuple of batches.
        to: ``"auto"``, or the name of a form, which is then returned however fast it is.
        seconds: how long to time the forms, after each has been made (which takes as long again for a sparse one).

    Raises:
        SparsityError: if the masks do not fit, a dead connection is not zero, or the form that ``to`` names cannot be made.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 10))
        >>> with torch.no_grad():
        ...     _ = net[0].weight[16:].zero_()  # 496 of 512 units
        ...     _ = net[0].bias[16:].zero_()
        >>> fast = finalise(net, None, torch.rand(64, 256), seconds=0.2)
        >>> "shrunk" in fast.form, round(sum(parameter.numel() for parameter in fast.model.parameters()), -2) < 10_000
        (True, True)
    """
    check_module(model)
    check_choice("to", to, ("auto", *FORMS))
    check_seconds(seconds)
    if masks is not None:
        check_weight_masks(masks, dict(model.named_parameters()))
        living_of(model, masks)
    arguments = as_arguments(example)
    batch = of_size(arguments, len(arguments[0]), device_of(model))
    dense = copied(model).eval()
    with torch.no_grad():
        Run(dense, batch)  # refuses an example that does not fit
    made, failed = {"dense": dense}, {}
    for form in FORMS if to == "auto" else [to]:
        try:
            made[form] = FORMS[form](dense, batch, seconds)
        except SparsityError as error:
            if to != "auto":
                raise
            failed[form] = in_short(error)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's about the state of its sparse tensors
        calls = {form: partial(net, *batch) for form, net in {**made, "again": dense}.items()}
        times = race(calls, seconds, device_of(model), cpu_time=True)
    speeds = {form: speedup(times, form, "dense") for form in made}
    noise = speedup(times, "again", "dense")
    best = max(speeds, key=lambda form: speeds[form])
    sure = speeds[best] > 1.0 + abs(noise - 1.0)
    form = to if to != "auto" else best if sure else "dense"
    chosen = made[form]
    milliseconds = 1e3 * statistics.median(times["dense"])
    return Finalised(chosen.eval(), form, speeds, noise, milliseconds, failed)
