"""What may explain a change of robustness: corruptions, shifts, and the model's curvature in pixels and weights.

Of texts it is the curvature in weights alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_sparse import measure
from lightning_sparse.app.measuring.kind import Kind, Settings, at_once, in_group, merged
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.app.values import count, counts, or_null, seed
from lightning_sparse.errors import SparsityError
from lightning_sparse.results.records import Measured

if TYPE_CHECKING:
    from torch import Tensor, nn


def _severities(name: str, value: Any) -> None:
    counts(None, "[1,2,3]")(name, value)
    if max(value) > 3:
        raise SparsityError(f"{name}={value!r} are not from 1, 2, 3: write {name}=[1,2,3]")


def _measure(trained: Trained, settings: Settings) -> Measured:
    data, seed = trained.test(settings), settings["seed"]
    minimum = trained.other("train", settings["hessian_images"])  # the curvature of the minimum that training found
    if trained.data.inputs == "tokens":  # what is done to pixels cannot be done to words
        return measure.measure_hessian(trained.model, minimum, masks=trained.masks, seed=seed)
    corruptions = measure.measure_corruptions(trained.model, data, severities=settings["severities"], seed=seed)
    shifts = measure.measure_shift_consistency(trained.model, data, most=settings["shift"])
    jacobian = measure.measure_jacobian(trained.model, data, calibration=trained.other("validation"))
    hessian = measure.measure_hessian(trained.model, minimum, masks=trained.masks, seed=seed)
    return merged([corruptions, shifts, jacobian, hessian])


def _try(model: nn.Module, few: tuple[Tensor, Tensor], settings: Settings) -> None:
    if few[0].is_floating_point():
        measure.measure_jacobian(model, few)
    measure.measure_hessian(model, few, iterations=1)


STABILITY = Kind(
    "stability",
    settings=in_group("stability"),
    values={
        "images": or_null(count(0, write=256)),
        "severities": _severities,
        "hessian_images": or_null(count(write=500)),
        "shift": count(write=2),
        "seed": seed,
    },
    try_on=_try,
    train_images="hessian_images",
    measure=at_once(_measure),
)
