"""What each layer reads of its inputs."""

from __future__ import annotations

from lightning_sparse import measure
from lightning_sparse.app.measuring.kind import Kind, Settings, at_once, in_group
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.app.values import count, or_null
from lightning_sparse.results.records import Measured


def _measure(trained: Trained, settings: Settings) -> Measured:
    return measure.measure_activations(trained.model, trained.test(settings), masks=trained.masks)


ACTIVITY = Kind(
    "activity",
    settings=in_group("activity"),
    values={"images": or_null(count(0, write=512))},
    measure=at_once(_measure),
)
