"""What a job can be asked to measure, by kind: its check before training, and its rows after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_sparse.data.images import ImageData
from lightning_sparse.engine.masks import Masks
from lightning_sparse.errors import SparsityError, check_choice, check_choices, check_count
from lightning_sparse.results.records import Measured

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Trained:
    """A trained model, and its data, of which no image of the test is read twice.

    Attributes:
        model: on the device where it is to be measured.
        masks: its masks; None for a dense one.
        data: the data that trained it.
        device: where images go.
    """

    model: nn.Module
    masks: Masks | None
    data: ImageData
    device: torch.device
    _read: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def test(self, settings: Settings) -> tuple[Tensor, Tensor]:
        """The test images that a measurement's ``images`` and ``first`` ask for."""
        if "test" not in self._read:
            self._read["test"] = self.data.split("test")
        images, labels = self._read["test"]
        chosen = places(self.data, settings)
        if len(chosen) < len(labels):
            images, labels = images[chosen], labels[chosen]
        return images.to(self.device), labels.to(self.device)

    def other(self, split: str, most: int | None = None) -> tuple[Tensor, Tensor]:
        """Images of another split."""
        images, labels = self.data.split(split, most)
        return images.to(self.device), labels.to(self.device)


def places(data: ImageData, settings: Settings) -> list[int]:
    """Which test images a measurement takes: a stratified sample, or the first ones if ``first`` is true."""
    most = settings.get("images")
    if settings.get("first") and most:
        return list(range(min(most, len(data.sample("test")))))
    return data.sample("test", most)


def _clean(trained: Trained, settings: Settings) -> Measured:
    from lightning_sparse.measure import measure_accuracy

    return measure_accuracy(trained.model, trained.test(settings))


def robustness(trained: Trained, settings: Settings, known: Measured) -> Measured:
    """Measure robust accuracy at each eps that is not among what is known."""
    from lightning_sparse.measure import measure_robustness

    return measure_robustness(trained.model, trained.test(settings), known=known, **_own(settings))


def _saliency(trained: Trained, settings: Settings) -> Measured:
    from lightning_sparse.measure import measure_saliency

    data, own = trained.test(settings), _own(settings)
    truth = trained.data.truth("test")
    if truth is not None:
        chosen = places(trained.data, settings)
        truth = {name: masks[chosen] for name, masks in truth.items()}
    common = {"calibration": trained.other("validation"), "truth": truth, "seed": own["seed"]}
    steady = own["max_sensitivity"]
    found = []
    for methods, measures in (
        ([method for method in own["methods"] if method in steady], [*own["measures"], "max_sensitivity"]),
        ([method for method in own["methods"] if method not in steady], own["measures"]),
    ):
        if methods:
            found.append(measure_saliency(trained.model, data, methods=methods, measures=measures, **common))
    together = _together(found)
    # What the images themselves come to is in both parts.
    return replace(together, records=list({row.chart: row for row in together.records}.values()))


def _shortcut(trained: Trained, settings: Settings) -> Measured:
    from lightning_sparse.data.planted_digits import shortcut_versions
    from lightning_sparse.measure import measure_shortcut

    truth = trained.data.truth("test")
    assert truth is not None  # only planted digits are asked for this
    return measure_shortcut(trained.model, shortcut_versions(*trained.test(settings), truth["quadrant"]))


def _stability(trained: Trained, settings: Settings) -> Measured:
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
    return _together(found)


def _transfer(trained: Trained, settings: Settings) -> Measured:
    from lightning_sparse.measure import craft, measure_accuracy

    images, labels = trained.test({**settings, "images": settings["of"]})
    images, labels = images[: settings["images"]], labels[: settings["images"]]
    chosen = {name: settings[name] for name in ("eps", "norm", "steps", "seed")}
    adversarial = craft(trained.model, (images, labels), **chosen)
    arrays = {"adversarial": adversarial, "images": images, "labels": labels}
    kept = {name: tensor.cpu().numpy() for name, tensor in arrays.items()}
    for name, shown in (("prediction", images), ("adversarial_prediction", adversarial)):
        kept[name] = measure_accuracy(trained.model, (shown.to(trained.device), labels)).arrays["prediction"]
    return Measured([], kept | {name: np.array(chosen[name]) for name in ("eps", "norm")})


def _cost(trained: Trained, settings: Settings) -> Measured:
    from lightning_sparse.measure import measure_cost
    from lightning_sparse.measure.description.description_length import measure_description_length

    size = len(trained.data.sample("train"))
    sample = trained.other("train", settings["images"])
    bits = measure_description_length(trained.model, sample, masks=trained.masks, train_size=size)
    return _together([measure_cost(trained.model, sample, masks=trained.masks), bits])


def _together(found: list[Measured]) -> Measured:
    arrays = {name: array for measured in found for name, array in measured.arrays.items()}
    return Measured([record for measured in found for record in measured.records], arrays)


def _own(settings: Settings) -> dict[str, Any]:
    """The settings that a measurement's function takes itself: without those that choose images and prepare the model."""
    return {name: value for name, value in settings.items() if name not in ("images", "first", "batchnorm")}


MEASUREMENTS: dict[str, Callable[[Trained, Settings], Measured]] = {
    "clean": _clean,
    "saliency": _saliency,
    "stability": _stability,
    "shortcut": _shortcut,
    "transfer": _transfer,
    "cost": _cost,
}
"""By kind, as ``measurements`` in ``asked.py`` lists them. Two are not among them: ``"vog"``, which its callback measures,
and ``"robust"``, which is measured an eps at a time in ``robust.py``."""


def check(kind: str, settings: Settings, data: ImageData) -> None:
    """Refuse settings that cannot be measured, before anything is spent on training.

    Raises:
        SparsityError: for settings out of range, and data that cannot be read.
    """
    try:
        places(data, settings)
    except SparsityError as error:
        group = "attack" if kind == "robust" else kind
        raise SparsityError(f"{group}.images={settings.get('images')!r}: {error}") from error
    if settings.get("batchnorm") not in (None, "recalibrated"):
        raise SparsityError(f"batchnorm={settings['batchnorm']!r} does not exist: write trained or recalibrated")
    if kind == "robust":
        _check_robust(settings)
    elif kind == "saliency":
        _check_saliency(settings)
    elif kind == "stability":
        data.sample("train", settings["hessian_images"])
    elif kind == "transfer":
        _check_transfer(settings)
    elif kind == "cost":
        data.sample("train", settings["images"])


def _check_robust(settings: Settings) -> None:
    from lightning_sparse.measure.robustness.attacks import ATTACKS
    from lightning_sparse.measure.robustness.balls import check_norm
    from lightning_sparse.measure.robustness.robust_accuracy import check_radii
    from lightning_sparse.measure.robustness.tiers import check_tier

    check_radii(settings["eps"], check_norm(settings["norm"]))
    check_tier(settings["tier"])
    if settings["attacks"] is not None:
        check_choices("attacks", settings["attacks"], ATTACKS)
    for name, write in (("steps", 20), ("restarts", 1)):
        if settings[name] is not None:
            check_count(name, settings[name], write=write)


def _check_transfer(settings: Settings) -> None:
    from lightning_sparse.measure.robustness.balls import check_eps

    check_eps("transfer.eps", settings["eps"], settings["norm"])
    check_count("transfer.steps", settings["steps"], write=20)


def _check_saliency(settings: Settings) -> None:
    from lightning_sparse.measure.explanations.attributions import ATTRIBUTIONS
    from lightning_sparse.measure.explanations.map_numbers import MEASURES

    for name, allowed in (("methods", ATTRIBUTIONS), ("max_sensitivity", ATTRIBUTIONS), ("measures", MEASURES)):
        for asked in settings[name]:
            check_choice(f"saliency.{name}", asked, allowed)
