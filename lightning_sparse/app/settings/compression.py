"""Check what is to be compressed, by which steps and to how many bits, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from lightning_sparse.app.compression import is_compressed, is_narrow, steps_of
from lightning_sparse.errors import SparsityError, check_share


def check_compression(config: Mapping[str, Any]) -> None:
    """Raise a SparsityError on settings of a compression that do not go together.

    Example:
        >>> check_compression({"bits": 0.05})
        Traceback (most recent call last):
        lightning_sparse.SparsityError: bits=0.05 is the size of a compressed network, and compression=none leaves it as it is: write compression=share, or bits=null
    """  # noqa: E501
    bits, node = config.get("bits"), config.get("compression", {})
    if not is_compressed(config):
        if bits is not None:
            raise SparsityError(
                f"bits={bits!r} is the size of a compressed network, and compression=none leaves it as it is: write "
                "compression=share, or bits=null"
            )
        if node.get("narrow"):
            raise SparsityError("compression.narrow=true without steps says no bits: write compression=narrow")
        return
    if bits is not None and not check_share("bits", bits, one_allowed=False):
        raise SparsityError("bits=0 is no size: write bits=0.05, a share of the dense network in float32")
    if "_target_" in config["sparsity"] or "small" in config["sparsity"]:
        raise SparsityError(
            "sparsity trains a network that is not dense, and compression begins with a dense one: write sparsity=dense, and "
            "the method into the step, compression=prune compression.steps.0.method={_target_: lightning_sparse.RigL, "
            "final_sparsity: 0.95}"
        )
    if config["adversarial"].get("eps") and node.get("epochs"):
        raise SparsityError(
            f"compression.epochs={node['epochs']} fine-tunes on clean images, which undoes what adversarial training has "
            "reached: write compression.epochs=0, or adversarial=none"
        )
    if is_narrow(config) and bits is None:
        raise SparsityError("compression=narrow finds its width by the bits: write bits=0.05")
    _check_steps(json.dumps({"compression": node, "bits": bits}, default=str))


@cache
def _check_steps(config: str) -> None:
    """Build the steps; once for all jobs of a sweep that have the same, because it brings torch."""
    steps_of(json.loads(config), narrow=lambda width: NotImplemented)
