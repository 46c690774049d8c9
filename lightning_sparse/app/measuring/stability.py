"""What may explain a change of robustness: corruptions, shifts, and how curved the model is in pixels and weights."""

from __future__ import annotations

from lightning_sparse.app.measuring.kind import Kind, Settings, at_once, in_group, merged
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.results.records import Measured


def _measure(trained: Trained, settings: Settings) -> Measured:
    from lightning_sparse.measure import (
        measure_corruptions,
        measure_hessian,
        measure_jacobian,
        measure_shift_consistency,
    )

    data, seed = trained.test(settings), settings["seed"]
    minimum = trained.other("train", settings["hessian_images"])  # it is about the minimum that training found
    found = [measure_corruptions(trained.model, data, severities=settings["severities"], seed=seed)]
    found.append(measure_shift_consistency(trained.model, data, most=settings["shift"]))
    found.append(measure_jacobian(trained.model, data, calibration=trained.other("validation")))
    found.append(measure_hessian(trained.model, minimum, masks=trained.masks, seed=seed))
    return merged(found)


STABILITY = Kind("stability", settings=in_group("stability"), train_images="hessian_images", measure=at_once(_measure))
