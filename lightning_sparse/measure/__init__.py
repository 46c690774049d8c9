"""Measure a trained classifier: accuracy, robustness, saliency, description length. Any nn.Module, without a Trainer.

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
    from lightning_sparse.measure.agreement import agreement_records as agreement_records
    from lightning_sparse.measure.agreement import rank_agreement as rank_agreement
    from lightning_sparse.measure.agreement import top_agreement as top_agreement
    from lightning_sparse.measure.attacks import ATTACKS as ATTACKS
    from lightning_sparse.measure.attributions import ATTRIBUTIONS as ATTRIBUTIONS
    from lightning_sparse.measure.attributions import attribute as attribute
    from lightning_sparse.measure.batchnorm import batchnorm_in_words as batchnorm_in_words
    from lightning_sparse.measure.batchnorm import has_batchnorm as has_batchnorm
    from lightning_sparse.measure.batchnorm import recalibrate_batchnorm as recalibrate_batchnorm
    from lightning_sparse.measure.calibration import fit_temperature as fit_temperature
    from lightning_sparse.measure.checks import check_images as check_images
    from lightning_sparse.measure.checks import check_logits as check_logits
    from lightning_sparse.measure.classifier import as_classifier as as_classifier
    from lightning_sparse.measure.corruptions import CORRUPTIONS as CORRUPTIONS
    from lightning_sparse.measure.corruptions import corrupt as corrupt
    from lightning_sparse.measure.corruptions import measure_corruptions as measure_corruptions
    from lightning_sparse.measure.cost import measure_cost as measure_cost
    from lightning_sparse.measure.description_length import measure_description_length as measure_description_length
    from lightning_sparse.measure.faithfulness import insertion_deletion_gap as insertion_deletion_gap
    from lightning_sparse.measure.forgotten import measure_forgotten as measure_forgotten
    from lightning_sparse.measure.forgotten import vog_overlap as vog_overlap
    from lightning_sparse.measure.gradient_variance import GradientVariance as GradientVariance
    from lightning_sparse.measure.gradient_variance import class_normalised as class_normalised
    from lightning_sparse.measure.gradient_variance import true_class_gradients as true_class_gradients
    from lightning_sparse.measure.hessian import measure_hessian as measure_hessian
    from lightning_sparse.measure.intervals import mean_interval as mean_interval
    from lightning_sparse.measure.intervals import t_interval as t_interval
    from lightning_sparse.measure.intervals import wilson as wilson
    from lightning_sparse.measure.jacobian import measure_jacobian as measure_jacobian
    from lightning_sparse.measure.localisation import mass_accuracy as mass_accuracy
    from lightning_sparse.measure.localisation import rank_accuracy as rank_accuracy
    from lightning_sparse.measure.maps import gini as gini
    from lightning_sparse.measure.paired import holm as holm
    from lightning_sparse.measure.paired import mcnemar as mcnemar
    from lightning_sparse.measure.paired import paired_bootstrap as paired_bootstrap
    from lightning_sparse.measure.paired import welch as welch
    from lightning_sparse.measure.projected_gradient import pgd as pgd
    from lightning_sparse.measure.randomisation import randomisation_check as randomisation_check
    from lightning_sparse.measure.robustness import measure_robustness as measure_robustness
    from lightning_sparse.measure.saliency import measure_saliency as measure_saliency
    from lightning_sparse.measure.saliency import same_images as same_images
    from lightning_sparse.measure.saliency_rows import records_over as records_over
    from lightning_sparse.measure.sensitivity import max_sensitivity as max_sensitivity
    from lightning_sparse.measure.shifts import measure_shift_consistency as measure_shift_consistency
    from lightning_sparse.measure.shortcut import measure_shortcut as measure_shortcut
    from lightning_sparse.measure.storage import storage_formats as storage_formats
    from lightning_sparse.measure.tiers import TIERS as TIERS
    from lightning_sparse.measure.transfer import craft as craft
    from lightning_sparse.measure.transfer import measure_transfer as measure_transfer
    from lightning_sparse.measure.transfer import transfer_matrix as transfer_matrix
    from lightning_sparse.measure.trust import THRESHOLDS as THRESHOLDS

_HOMES = {
    "accuracy": ["measure_accuracy"],
    "agreement": ["agreement_records", "rank_agreement", "top_agreement"],
    "attacks": ["ATTACKS"],
    "attributions": ["ATTRIBUTIONS", "attribute"],
    "batchnorm": ["batchnorm_in_words", "has_batchnorm", "recalibrate_batchnorm"],
    "calibration": ["fit_temperature"],
    "checks": ["check_images", "check_logits"],
    "classifier": ["as_classifier"],
    "corruptions": ["CORRUPTIONS", "corrupt", "measure_corruptions"],
    "cost": ["measure_cost"],
    "description_length": ["measure_description_length"],
    "faithfulness": ["insertion_deletion_gap"],
    "forgotten": ["measure_forgotten", "vog_overlap"],
    "gradient_variance": ["GradientVariance", "class_normalised", "true_class_gradients"],
    "hessian": ["measure_hessian"],
    "intervals": ["mean_interval", "t_interval", "wilson"],
    ".isolation": ["untouched"],
    "jacobian": ["measure_jacobian"],
    "localisation": ["mass_accuracy", "rank_accuracy"],
    "maps": ["gini"],
    "paired": ["holm", "mcnemar", "paired_bootstrap", "welch"],
    "projected_gradient": ["pgd"],
    "randomisation": ["randomisation_check"],
    "robustness": ["measure_robustness"],
    "saliency": ["measure_saliency", "same_images"],
    "saliency_rows": ["records_over"],
    "sensitivity": ["max_sensitivity"],
    "shifts": ["measure_shift_consistency"],
    "shortcut": ["measure_shortcut"],
    "storage": ["storage_formats"],
    "tiers": ["TIERS"],
    "transfer": ["craft", "measure_transfer", "transfer_matrix"],
    "trust": ["THRESHOLDS"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
