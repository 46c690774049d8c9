"""What a training may have beside its sparsity: networks trained so are compared among each other, as other models are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SUBJECTS = ("vectors", "augment", "adversarial", "activation", "weight_noise", "steering")
"""Groups of the configuration, each of which a job need not have; a callback each, built in this order."""


def subjects(config: Mapping[str, Any]) -> list[str]:
    """The groups that are on in a configuration.

    Example:
        >>> subjects({"adversarial": {"eps": 0}, "steering": {"_target_": "lightning_sparse.ExampleSteering"}})
        ['steering']
    """
    on = [group for group in SUBJECTS if "_target_" in config.get(group, {})]
    return [group for group in on if group != "adversarial" or config[group].get("eps")]


def in_words(group: str, choice: str, node: Mapping[str, Any]) -> tuple[str, str]:
    """What a group makes of a training: as its model is told from others, and in its job's name.

    Example:
        >>> in_words("activation", "top_k", {"density": 0.1}), in_words("adversarial", "pgd", {"eps": 0.1})
        (('top_k-0.1', 'top_k-0.1'), ('pgd-trained', 'pgd'))
        >>> in_words("steering", "loss", {"score": "loss", "share": 0.4})
        ('drop 0.4 by loss', 'loss')
        >>> in_words("vectors", "file", {"directions": 2})
        ('file-2', 'file-2')
    """
    if group == "augment":
        return f"{choice} augmentation", choice
    if group == "activation":
        density = node.get("density")  # what is no number is refused when the job runs
        kept = f"{choice}-{density:g}" if isinstance(density, int | float) else choice
        return kept, kept
    if group == "steering":
        score = node.get("score", "loss")
        return f"{node.get('action', 'drop')} {node.get('share', 0.2)} by {score}", str(score)
    if group == "vectors":
        directions = "" if node.get("directions") is None or choice.endswith("_top") else f"-{node['directions']}"
        return choice + directions, choice + directions
    return f"{choice}-trained", choice
