"""Train one model, resume its training, or load it if an earlier launch has trained it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.parameter import UninitializedParameter

from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.app.build import load_weights, with_activations
from lightning_sparse.app.measuring.measurements import Measurement, try_measurements
from lightning_sparse.callbacks.epoch_checkpoint import EndCheckpoint, EpochCheckpoint
from lightning_sparse.callbacks.random_state import RandomState
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.data.fixed_splits import FixedSplits
from lightning_sparse.engine.checkpoints import check_state, read_checkpoint
from lightning_sparse.engine.masks import Masks, load_masks
from lightning_sparse.engine.recipe import check_same_recipe
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.advice import COMMAND_LINE, advice_for
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import about_size, size_refusal
from lightning_sparse.measure.language import measure_language
from lightning_sparse.measure.outputs import check_logits
from lightning_sparse.results.jobs import ASIDE, Job
from lightning_sparse.results.unreadable import TRAIN, Unreadable, put_aside, say


def check_classifier(model: LightningModule, data: FixedSplits, measurements: list[Measurement]) -> None:
    """Raise a SparsityError before the training if the model does not return logits, or cannot be measured as asked.

    A module that builds its layers in ``setup`` or at its first batch cannot be called yet, and is not checked here.
    """
    if any(isinstance(parameter, UninitializedParameter) for parameter in model.parameters()):
        return
    images, labels = data.split("test", max(data.classes, 16))
    with advice_for(COMMAND_LINE):
        with untouched(model), torch.no_grad():
            try:
                outputs = model(images)
            except Exception as error:
                if isinstance(error, NotImplementedError) or _takes_more(model):
                    raise SparsityError(
                        f"model={type(model).__name__} cannot be called as model(images) ({error}): let its forward() take "
                        "images alone and return logits, because every network's accuracy is measured by it"
                    ) from error
                if isinstance(error, RuntimeError | ValueError | AssertionError | IndexError) and about_size(error):
                    raise size_refusal(model, images, error) from error
                return
            check_images(images, labels, classes=check_logits(outputs).shape[1])
        try_measurements(measurements, model, (images[:2], labels[:2]))


def check_language_model(model: LightningModule, data: FixedSplits) -> None:
    """Raise a SparsityError before the training if the model does not foretell the tokens of the data."""
    measure_language(model, data.split("test", data.classes))


def _takes_more(model: LightningModule) -> bool:
    try:
        inspect.signature(model.forward).bind(None)
    except TypeError:
        return True
    return False


def survival(job: Job) -> list[Callback]:
    """The callbacks with which a killed training resumes from its last checkpoint as if nothing had happened."""
    # They come last, because checkpoints hold the state of the other callbacks.
    return [RandomState(), EpochCheckpoint(job.half_done), EndCheckpoint(job.ended)]


def train(
    job: Job, model: LightningModule, data: FixedSplits, trainer: Trainer, following: Iterable[Callback]
) -> Masks | None:
    """Fit the model, resume its training, or load it if an earlier launch has trained it; return its masks, None if dense.

    The validation accuracy of the trained model goes into ``job.json``, unless the module logs no ``val_accuracy``. The
    trainer has the callbacks of :func:`survival`, and among its others ``following``, whose state is restored too.
    """
    sparse = [callback for callback in trainer.callbacks if isinstance(callback, SparseTraining)]  # type: ignore[attr-defined]
    following = list(following)
    if job.checkpoint.exists():
        try:
            masks = _load(job.checkpoint, model, following, sparse)
        except SparsityError as error:
            _train_again(job.checkpoint, error)
        else:
            stored = job.stored() or job
            if (
                stored.objective is None
                and any(job.folder.glob(f"job.json{ASIDE}*"))
                and _overrides(model, "validation_step")
            ):
                trainer.validate(model, datamodule=data, verbose=False)
                stored.save(objective=_accuracy(trainer))
            job.half_done.unlink(missing_ok=True)
            return masks
    _fit(job, model, data, trainer, sparse)
    job.half_done.unlink(missing_ok=True)
    return _load(job.checkpoint, model, following, sparse)


def _fit(job: Job, model: LightningModule, data: FixedSplits, trainer: Trainer, sparse: list[SparseTraining]) -> None:
    goes_on = None
    if job.half_done.exists():
        try:
            _check_fits(read_checkpoint(job.half_done, trusted=True), model, sparse)
            goes_on = job.half_done
        except SparsityError as error:
            _train_again(job.half_done, error)
    # We wrote it ourselves, and a module's hyperparameters may be of any type.
    trainer.fit(model, datamodule=data, ckpt_path=goes_on, weights_only=False)
    accuracy = _accuracy(trainer)
    if accuracy is None and goes_on:  # the last validation was before the kill
        trainer.validate(model, datamodule=data, verbose=False)
        accuracy = _accuracy(trainer)
    job.save(objective=accuracy)
    os.replace(job.ended, job.checkpoint)  # last, so that where there is a checkpoint, the objective is known


def _accuracy(trainer: Trainer) -> float | None:
    accuracy = trainer.callback_metrics.get("val_accuracy")
    return None if accuracy is None else float(accuracy)


def _train_again(path: Path, error: SparsityError) -> None:
    say(Unreadable(path, str(error).partition(":")[0], TRAIN), put_aside(path), "the training starts again")


def _load(
    path: Path, model: LightningModule, following: Iterable[Callback], sparse: list[SparseTraining]
) -> Masks | None:
    """Load a trained model and what followed its training; raise a SparsityError if the file is not of such a one."""
    content = read_checkpoint(path, trusted=True)
    _check_fits(content, model, sparse)
    masks = load_masks(content) if sparse else None
    built = not any(_overrides(model, hook) for hook in ("setup", "configure_model"))  # which make layers later
    if built and content["state_dict"].keys() != model.state_dict().keys():
        raise SparsityError("weights of another model: it has other layers")
    # The weights come last, because those of a model that is trained again must be its first ones.
    try:
        for callback in following:
            callback.load_state_dict(content["callbacks"][callback.state_key])
    except (KeyError, TypeError) as error:
        raise SparsityError(f"it lacks the state of {error}") from error
    load_weights(model, content["state_dict"])
    with_activations(model, content)
    return masks


def _overrides(model: LightningModule, hook: str) -> bool:
    return getattr(type(model), hook) is not getattr(LightningModule, hook)


def _check_fits(content: Mapping[str, Any], model: LightningModule, sparse: list[SparseTraining]) -> None:
    """Raise a SparsityError if a checkpoint cannot be of this training, whose model may make its layers later."""
    weights, mine = content.get("state_dict"), model.state_dict()
    if not isinstance(weights, Mapping) or not isinstance(content.get("callbacks"), Mapping):
        raise SparsityError("no checkpoint of a Trainer: it has no weights and callbacks")
    tensors = {
        name: tensor for name, tensor in mine.items() if isinstance(tensor, torch.Tensor)
    }  # a module may save others
    shapes = {name: tensor.shape for name, tensor in tensors.items() if not isinstance(tensor, UninitializedParameter)}
    common = [name for name in shapes if name in weights]
    narrowed = "Shrink" in content["callbacks"]  # in its training, which would do the same again
    if (shapes and not common) or not all(_shaped(weights[name], shapes[name], narrowed) for name in common):
        raise SparsityError("weights of another model: it has other layers")
    for callback in sparse:
        state = content["callbacks"].get(callback.state_key)
        if not isinstance(state, Mapping):
            raise SparsityError("the checkpoint of a training without this callback")
        if state:  # empty before the first step
            check_state(state)
            check_same_recipe(callback.recipe.plain(), state["recipe"])


def _shaped(weight: object, shape: torch.Size, narrower_too: bool) -> bool:
    there = getattr(weight, "shape", None)
    if there is None or len(there) != len(shape):
        return False
    return there == shape or (narrower_too and all(new <= old for new, old in zip(there, shape, strict=True)))


def counted_sparsity(model: LightningModule, masks: Masks | None) -> float:
    """The sparsity of the masks, 0 for a dense model; raises a SparsityError if a masked weight of the model is not 0."""
    if masks is None:
        return 0.0
    alive = sum(int(model.get_parameter(name)[~mask].count_nonzero()) for name, mask in masks.items())
    if alive:
        raise SparsityError(
            f"{alive} masked weights of the trained model are not zero: something rewrote the weights after the last step "
            "(weight averaging, perhaps); leave it out"
        )
    return masks.sparsity
