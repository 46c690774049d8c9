"""Measure a trained classifier: accuracy, adversarial robustness, saliency. Works on any nn.Module, without a Trainer.

Importing this package costs nothing: a name is imported from its module when it is first used.

Example:
    >>> from lightning_sparse import measure
    >>> low, high = measure.wilson(90, 100)
    >>> f"{low:.3f} to {high:.3f}"
    '0.826 to 0.945'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_sparse.isolation import untouched as untouched
    from lightning_sparse.measure.accuracy import measure_accuracy as measure_accuracy
    from lightning_sparse.measure.attacks import ATTACKS as ATTACKS
    from lightning_sparse.measure.attributions import ATTRIBUTIONS as ATTRIBUTIONS
    from lightning_sparse.measure.attributions import attribute as attribute
    from lightning_sparse.measure.calibration import fit_temperature as fit_temperature
    from lightning_sparse.measure.checks import check_images as check_images
    from lightning_sparse.measure.checks import check_logits as check_logits
    from lightning_sparse.measure.classifier import as_classifier as as_classifier
    from lightning_sparse.measure.faithfulness import insertion_deletion_gap as insertion_deletion_gap
    from lightning_sparse.measure.intervals import mean_interval as mean_interval
    from lightning_sparse.measure.intervals import t_interval as t_interval
    from lightning_sparse.measure.intervals import wilson as wilson
    from lightning_sparse.measure.projected_gradient import pgd as pgd
    from lightning_sparse.measure.robustness import measure_robustness as measure_robustness
    from lightning_sparse.measure.saliency import agreement as agreement
    from lightning_sparse.measure.saliency import agreement_record as agreement_record
    from lightning_sparse.measure.saliency import gini as gini
    from lightning_sparse.measure.saliency import measure_saliency as measure_saliency

_HOMES = {
    "accuracy": ["measure_accuracy"],
    "attacks": ["ATTACKS"],
    "attributions": ["ATTRIBUTIONS", "attribute"],
    "calibration": ["fit_temperature"],
    "checks": ["check_images", "check_logits"],
    "classifier": ["as_classifier"],
    "faithfulness": ["insertion_deletion_gap"],
    "intervals": ["mean_interval", "t_interval", "wilson"],
    ".isolation": ["untouched"],
    "projected_gradient": ["pgd"],
    "robustness": ["measure_robustness"],
    "saliency": ["agreement", "agreement_record", "gini", "measure_saliency"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
