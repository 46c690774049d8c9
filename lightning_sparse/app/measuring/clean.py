"""Accuracy on the whole test split, which every job measures; of a language model also bits and perplexity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_sparse import measure
from lightning_sparse.app.measuring.kind import LANGUAGE, Kind, Settings, at_once

if TYPE_CHECKING:
    from lightning_sparse.app.measuring.trained import Trained
    from lightning_sparse.results.records import Measured


def _measure(trained: Trained, settings: Settings) -> Measured:
    of_texts = trained.task == LANGUAGE
    return (measure.measure_language if of_texts else measure.measure_accuracy)(trained.model, trained.test(settings))


CLEAN = Kind("clean", settings=lambda config: {}, measure=at_once(_measure), of_language=True)
