"""The largest embedding of a network: its living rows, isotropy, and what its vectors know of words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_sparse import measure
from lightning_sparse.app.measuring.kind import Kind, Settings, at_once, in_group
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.app.values import names
from lightning_sparse.errors import check_flag
from lightning_sparse.results.records import Measured

if TYPE_CHECKING:
    from torch import Tensor, nn


def _measure(trained: Trained, settings: Settings) -> Measured:
    from lightning_sparse.measure.embeddings.tables import embedding_of

    tests = settings["word_tests"]
    if not tests:
        return measure.measure_embedding(trained.model)
    words = ["", "", *getattr(trained.data, "vocabulary", [])]  # padding and the unknown word are none
    spare = len(embedding_of(trained.model)[1].weight) - len(words)
    return measure.measure_embedding(trained.model, words + [""] * spare, tests=tests)


def _try(model: nn.Module, few: tuple[Tensor, Tensor], settings: Settings) -> None:
    measure.measure_embedding(model)


EMBEDDING = Kind(
    "embedding",
    settings=in_group("embedding", unless="isotropy"),
    values={
        "isotropy": check_flag,
        "word_tests": names(("wordsim353", "simlex999", "analogies"), "lightning_sparse.measure.TESTS", empty=True),
    },
    switch="isotropy",
    try_on=_try,
    measure=at_once(_measure),
    of_language=True,
)
