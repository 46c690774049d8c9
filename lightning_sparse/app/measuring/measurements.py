"""All kinds of measurement, which of them a configuration asks for, and checks before the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_sparse.app.measuring.activity import ACTIVITY
from lightning_sparse.app.measuring.biases import BIASES
from lightning_sparse.app.measuring.clean import CLEAN
from lightning_sparse.app.measuring.coded import CODED
from lightning_sparse.app.measuring.communication import COMMUNICATION
from lightning_sparse.app.measuring.cost import COST
from lightning_sparse.app.measuring.embedding import EMBEDDING
from lightning_sparse.app.measuring.examples import EXAMPLES
from lightning_sparse.app.measuring.kind import CLASSES, LANGUAGE, Kind, Settings
from lightning_sparse.app.measuring.language import LANGUAGE_MODEL
from lightning_sparse.app.measuring.latency import LATENCY
from lightning_sparse.app.measuring.layer_sensitivity import LAYER_SENSITIVITY
from lightning_sparse.app.measuring.predictability import PREDICTABILITY
from lightning_sparse.app.measuring.robust import ROBUST
from lightning_sparse.app.measuring.saliency import SALIENCY
from lightning_sparse.app.measuring.shortcut import SHORTCUT
from lightning_sparse.app.measuring.stability import STABILITY
from lightning_sparse.app.measuring.transfer import TRANSFER
from lightning_sparse.app.measuring.vog import VOG
from lightning_sparse.errors import SparsityError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lightning_sparse.data.fixed_splits import FixedSplits

KINDS = (
    CLEAN,
    LANGUAGE_MODEL,
    ROBUST,
    SALIENCY,
    SHORTCUT,
    STABILITY,
    BIASES,
    TRANSFER,
    CODED,
    COST,
    COMMUNICATION,
    ACTIVITY,
    EMBEDDING,
    LATENCY,
    LAYER_SENSITIVITY,
    PREDICTABILITY,
    VOG,
    EXAMPLES,
)
"""In the order in which they are measured."""


@dataclass(frozen=True)
class Measurement:
    """One measurement that a configuration asks for.

    Attributes:
        kind: what is measured.
        settings: with which settings; the parts of a robust accuracy share theirs.
        key: of its rows; what is on disk under this key is not measured again.
    """

    kind: Kind
    settings: Settings
    key: str


def measurements_of(config: Mapping[str, Any]) -> list[Measurement]:
    """List what a composed configuration, as plain dicts, asks for: accuracy always, the rest unless it is off."""
    batchnorm = {} if config.get("batchnorm", "trained") == "trained" else {"batchnorm": config["batchnorm"]}
    found = []
    for kind in KINDS:
        settings = kind.settings(config)
        if settings is not None:
            if not kind.callback:  # a callback sees BatchNorm as it is during the training
                settings = dict(settings) | batchnorm
            found += [Measurement(kind, settings, key) for key in kind.keys_of(settings)]
    return found


def check_measurements(measurements: list[Measurement], data: FixedSplits, task: str = CLASSES) -> None:
    """Raise a SparsityError before the training for settings out of range, and for data that cannot be read."""
    data.setup()
    for kind in {measurement.kind: None for measurement in measurements}:
        group = kind.group or kind.name
        if task == LANGUAGE and not kind.of_language:
            raise SparsityError(f"{kind.name} is measured of classes, and task=lm has none: write {group}=none")
        if data.inputs == "tokens" and not kind.of_texts:
            raise SparsityError(f"{kind.name} is measured of pixels, and the data are texts: write {group}=none")
    for kind, settings in {measurement.kind: measurement.settings for measurement in measurements}.items():
        for name, split in (("images", "test"), (kind.train_images, "train")):
            try:
                data.sample(split, None if settings.get("first") else settings.get(name))
            except SparsityError as error:
                if name not in settings:  # the fault is in the data themselves
                    raise
                raise SparsityError(f"{kind.group or kind.name}.{name}={settings[name]!r}: {error}") from error
        if settings.get("batchnorm") not in (None, "recalibrated"):
            raise SparsityError(f"batchnorm={settings['batchnorm']!r} does not exist: write trained or recalibrated")
        if kind.check:
            kind.check(settings)


def try_measurements(measurements: list[Measurement], model: nn.Module, few: tuple[Tensor, Tensor]) -> None:
    """Raise a SparsityError before the training if a model, tried on a few images and labels, cannot be measured."""
    for kind, settings in {measurement.kind: measurement.settings for measurement in measurements}.items():
        if kind.try_on:
            try:
                kind.try_on(model, few, settings)
            except SparsityError as error:
                group = kind.group or kind.name
                raise SparsityError(f"{error}; or write {group}=none to leave {kind.name} out") from error
