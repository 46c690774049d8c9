"""Compress what a job has trained, or decode it if an earlier launch has compressed it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.pytorch import LightningModule
from omegaconf import DictConfig

from lightning_sparse.anatomy.copies import copied
from lightning_sparse.anatomy.isolation import fork_random_states
from lightning_sparse.app.build import build_dense, build_model, decoded_model
from lightning_sparse.app.compression import is_compressed, is_narrow, steps_of
from lightning_sparse.app.small_dense import width_of_bits
from lightning_sparse.compress.bits import check_reachable
from lightning_sparse.compress.byte_string import PARTS
from lightning_sparse.compress.compressing import Compressed, compress
from lightning_sparse.compress.draft import Draft
from lightning_sparse.compress.network_code import DENSE_BITS
from lightning_sparse.compress.state import numbers_of
from lightning_sparse.compress.steps.narrow import Narrow
from lightning_sparse.data.fixed_splits import FixedSplits
from lightning_sparse.errors import SparsityError
from lightning_sparse.results.fields import wrong_kind
from lightning_sparse.results.files import write_whole
from lightning_sparse.results.jobs import Job
from lightning_sparse.results.unreadable import COMPRESS, Unreadable, put_aside, say


@dataclass(frozen=True)
class Coded:
    """What a compressed network takes.

    Attributes:
        share: of the dense network in float32.
        parts: by part, likewise.
        ideal: of an ideal code, likewise.
        numbers: floating-point numbers of the dense network.
        bytes: of the content.
        says: the steps, each with what was found, and the layers that were left alone.
    """

    share: float
    parts: Mapping[str, float]
    ideal: float
    numbers: int
    bytes: int
    says: str


def check_reach(config: DictConfig, model: LightningModule) -> None:
    """Raise an OutOfReachError before the training where it can be seen that the bits cannot be reached.

    That of ``compression=narrow`` is raised when the network is built.
    """
    if not is_compressed(config) or is_narrow(config) or config.bits is None:
        return
    steps = steps_of(config, narrow=partial(build_model, config))
    with fork_random_states(0), torch.no_grad():
        check_reachable(config.bits, steps, Draft(copied(model)), numbers_of(model))


def compressed(
    config: DictConfig, job: Job, model: LightningModule, data: FixedSplits
) -> tuple[LightningModule, Coded]:
    """Compress a trained model, or decode it if an earlier launch has compressed it.

    The string goes into ``model.lsc`` and what its parts take into ``model.lsc.json``, each whole or not at all. It is
    the same string in every launch.

    Returns:
        The model as it is decoded, on the device of the one given, and what it takes.
    """
    try:
        coded = _account(job)
        if coded is not None:
            return decoded_model(config, job.content).to(model.device), coded
    except SparsityError as error:
        for path in (job.content, job.account):
            if path.exists():
                say(Unreadable(path, str(error), COMPRESS), put_aside(path), "the trained network is compressed again")
    found = _compress(config, job, model, data)
    coded = _coded(found)
    write_whole(job.account, json.dumps(asdict(coded), indent=1))
    write_whole(job.content, found.content)  # last, so that where there is content, its account is known
    decoded = found.model
    assert isinstance(decoded, LightningModule)
    return decoded, coded


def _compress(config: DictConfig, job: Job, model: LightningModule, data: FixedSplits) -> Compressed:
    node, whole = config.compression, model
    steps: list[Any] = steps_of(config, narrow=lambda width: NotImplemented)
    if is_narrow(config):
        # The string says how wide it is; all else is as for the networks that are narrowed after their training.
        width = width_of_bits(partial(build_model, config), config.bits)
        with fork_random_states(0):
            whole = build_dense(config).to(model.device)
        steps = [Narrow(lambda width: copied(model), width), *steps[1:]]
    return compress(
        whole,
        steps,
        data=data.split("train"),
        fine_tune=node.get("epochs", 0),
        bits=None if is_narrow(config) else config.bits,
        batch_size=data.batch_size,
        optimizer=instantiate(node.get("optimizer"), _convert_="all"),
        seed=job.seed,
    )


def _coded(found: Compressed) -> Coded:
    dense = DENSE_BITS * found.account.numbers
    steps = (f"Narrow(width={s.width:.4g})" if isinstance(s, Narrow) else str(s) for s in found.steps)
    alone = [f"{name} left alone: {why}" for name, why in found.left_alone.items()]
    return Coded(
        share=found.share,
        parts={part: found.account.part(part) / dense for part in PARTS},
        ideal=found.account.ideal_bits / dense,
        numbers=found.account.numbers,
        bytes=len(found.content),
        says="; ".join([" -> ".join(steps), *alone]),
    )


def _account(job: Job) -> Coded | None:
    """The account that an earlier launch has written; None if it came to none."""
    if not job.content.exists():
        return None
    try:
        said = json.loads(job.account.read_bytes())
        wrong = wrong_kind({name: item for name, item in said.items() if name != "parts"} | {"parts": ""}, Coded)
        if wrong or said["bytes"] != job.content.stat().st_size:
            raise ValueError(wrong or "of another content")
        return Coded(**said)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SparsityError(f"without an account of its parts ({error})") from error
