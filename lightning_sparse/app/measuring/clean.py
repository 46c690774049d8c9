"""Accuracy on the whole test split, which every job measures."""

from __future__ import annotations

from lightning_sparse.app.measuring.kind import Kind, Settings, at_once
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.results.records import Measured


def _measure(trained: Trained, settings: Settings) -> Measured:
    from lightning_sparse.measure import measure_accuracy

    return measure_accuracy(trained.model, trained.test(settings))


CLEAN = Kind("clean", settings=lambda config: {}, measure=at_once(_measure))
