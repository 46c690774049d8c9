"""How much a model relies on the planted shortcut; for planted digits only."""

from __future__ import annotations

from lightning_sparse import measure
from lightning_sparse.app.measuring.kind import Kind, Settings, at_once
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.results.records import Measured


def _measure(trained: Trained, settings: Settings) -> Measured:
    from lightning_sparse.data.planted_digits import shortcut_versions

    truth = trained.data.truth("test")
    assert truth is not None  # only planted digits are asked for this
    return measure.measure_shortcut(trained.model, shortcut_versions(*trained.test(settings), truth["quadrant"]))


SHORTCUT = Kind(
    "shortcut",
    settings=lambda config: {} if config["data"].get("name") == "planted" else None,
    measure=at_once(_measure),
    of_texts=False,
)
