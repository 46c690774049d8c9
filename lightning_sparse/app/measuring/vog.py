"""The variance of gradients over the training, by a callback that follows it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lightning_sparse.app.measuring.kind import Kind, Settings, at_once, in_group
from lightning_sparse.app.measuring.trained import Trained, places
from lightning_sparse.results.records import Measured

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    from lightning_sparse.data.images import ImageData


def _callback(settings: Settings, data: ImageData) -> Callback:
    from lightning_sparse.callbacks.variance_of_gradients import VarianceOfGradients

    # Of test images, because that is where pruning's forgetting is seen; nothing in the training looks at it.
    return VarianceOfGradients(data.split("test", settings["images"]))


def _measure(trained: Trained, settings: Settings) -> Measured:
    import numpy as np

    from lightning_sparse.callbacks.variance_of_gradients import VarianceOfGradients

    vog = trained.callbacks["vog"]
    assert isinstance(vog, VarianceOfGradients)
    found = vog.measured()
    # Where in the test split they stand.
    return replace(found, arrays=found.arrays | {"places": np.array(places(trained.data, settings))})


VOG = Kind("vog", settings=in_group("vog"), callback=_callback, measure=at_once(_measure))
