"""Bits a token, perplexity and accuracy of the next token on the test split, which every job of ``task=lm`` measures."""

from __future__ import annotations

from lightning_sparse import measure
from lightning_sparse.app.measuring.kind import LANGUAGE, Kind, at_once

LANGUAGE_MODEL = Kind(
    "language",
    settings=lambda config: {} if config.get("task") == LANGUAGE else None,
    measure=at_once(lambda trained, settings: measure.measure_language(trained.model, trained.test(settings))),
    of_language=True,
)
