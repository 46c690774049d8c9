"""Accuracy on the whole test split, which every job measures."""

from __future__ import annotations

from lightning_sparse import measure
from lightning_sparse.app.measuring.kind import LANGUAGE, Kind, at_once

CLEAN = Kind(
    "clean",
    settings=lambda config: None if config.get("task") == LANGUAGE else {},
    measure=at_once(lambda trained, settings: measure.measure_accuracy(trained.model, trained.test(settings))),
)
