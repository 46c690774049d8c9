"""What the callbacks that give weights few values have in common: when they begin, and who else writes weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_sparse.anatomy.parameters import Targets, sparsifiable
from lightning_sparse.anatomy.patterns import check_patterns
from lightning_sparse.callbacks.trainer.callbacks_of import callbacks_of
from lightning_sparse.callbacks.trainer.copies_in_module import trained_in
from lightning_sparse.callbacks.trainer.one_of_a_kind import OneOfAKind
from lightning_sparse.callbacks.trainer.optimizer_steps import optimizer_steps
from lightning_sparse.callbacks.trainer.refusals import refuse_sharded
from lightning_sparse.callbacks.trainer.resumed_from import explain_ckpt_path, restoring, stop_explaining
from lightning_sparse.callbacks.trainer.spawned_state import SpawnedState
from lightning_sparse.compress.quantised_weights import QuantisedWeights
from lightning_sparse.compress.shared_weights import SharedWeights
from lightning_sparse.engine.times import Time, check_time, to_step
from lightning_sparse.errors import SparsityError

Weights = QuantisedWeights | SharedWeights


class FewValues(OneOfAKind):
    """Give the weights few values from some step of a fit on, whatever other callbacks do to them.

    It puts itself behind all other callbacks that save nothing: its hooks then run after the masks', and what an average has
    put in the model's place gets few values too.

    Attributes:
        weights: what holds the weights; None before training.
        distinct_values: how many values the living weights of each parameter take, counted when training has ended, by name
            (of quantised rows, in the row that has most); None before.
    """

    def __init__(self, begin: Time, include: Sequence[str] | None, exclude: Sequence[str] | None) -> None:
        super().__init__()
        self.begin = check_time("begin", begin)
        self.include, self.exclude = check_patterns("include", include), check_patterns("exclude", exclude)
        self.weights: Weights | None = None
        self.distinct_values: dict[str, int] | None = None
        self._begin_at = self._clock_before = 0
        self._inputs_first: frozenset[str] = frozenset()
        self._epochs: int | None = None
        self._restored: dict[str, Any] | None = None
        self._installed_on: list[Optimizer] = []
        self._put_by: dict[str, Tensor] = {}
        self._lent = False  # whether what is validated is an average in the model's place
        self._spawned = SpawnedState()

    instead = (
        "both want the same parameters: leave one out, or give each parameter to one of them with include=[...] and "
        "exclude=[...]"
    )

    def form(self) -> dict[str, Any]:
        """The arguments that say how few values, which a resumed training has to have too."""
        raise NotImplementedError

    def hold(self, parameters: Mapping[str, nn.Parameter]) -> Weights:
        """Make what holds the weights."""
        raise NotImplementedError

    @property
    def kind(self) -> str:
        """The key of the state in a checkpoint: two callbacks on different parameters of one model have different ones."""
        return f"{type(self).__name__}[include={self.include}, exclude={self.exclude}]"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what does not fit the Trainer, and go behind the callbacks that move weights."""
        super().setup(trainer, pl_module, stage)
        explain_ckpt_path(trainer)
        given: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        last = [each for each in given if isinstance(each, FewValues | Checkpoint)]
        trainer.callbacks = [  # type: ignore[attr-defined]  # another list: Lightning is going through this one
            *(each for each in given if each not in last),
            *sorted(last, key=lambda each: isinstance(each, Checkpoint)),
        ]
        if stage != "fit":
            return
        refuse_sharded(trainer, "the values of a weight cannot be found")
        if not pl_module.automatic_optimization and isinstance(self.begin, float) and self.begin > 0:
            raise self._unknown_length()
        goes_on = trainer.ckpt_path is None and trainer.global_step > 0
        self._restored = self.state_dict() or None if goes_on else None
        self._epochs, self.weights, self.distinct_values = trainer.max_epochs, None, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take hold of the weights, and go on from a restored state or begin if it is time."""
        parameters = self._parameters(trainer, pl_module)
        for other in callbacks_of(trainer, FewValues):
            shared = (
                other.weights and other is not self and next(iter(other.weights.parameters.keys() & parameters), None)
            )
            if shared:
                raise SparsityError(
                    f"{type(other).__name__} and {type(self).__name__} both want {shared!r}: give each parameter to one of "
                    "them with include=[...] and exclude=[...]"
                )
        self.weights, self._inputs_first = self.hold(parameters), parameters.inputs_first
        state, self._restored = self._state(), None
        if state is None:
            self._begin_at, self._clock_before = self._steps_before(trainer), 0
        else:
            with restoring(type(self).__name__):
                self._go_on(self.weights, state)
        self._install(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin when it is time; then see to weights that something else has put in the model's place."""
        if self.weights is None:
            return
        if self._installed_on != trainer.optimizers:
            self._install(trainer)  # the module has replaced them since
        if not self.weights.begun:
            if self._clock >= self._begin_at:
                self.weights.begin()
        elif self.weights.moved() or (batch_idx == 0 and self._others_stand_in()):
            self.weights.adopt()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """If an average is in the model's place, let it be validated with few values."""
        if batch_idx == 0:
            self._lent = self.weights is not None and self.weights.begun and self._others_stand_in()
        if self.weights is not None and self._lent:
            self._put_by = {name: weight.detach().clone() for name, weight in self.weights.parameters.items()}
            _put(self.weights.rounded(self._put_by), self.weights)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Put the average back as it was, for whoever has lent it."""
        if self.weights is not None and self._put_by:
            _put(self._put_by, self.weights)
            self._put_by = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Give few values to what is saved as the model, which may be an average."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self.weights is not None and self.weights.begun:
            state = checkpoint["state_dict"]
            mine = {name: state[name] for name in self.weights.parameters if name in state}
            written = self.weights.written()
            if not all(torch.equal(mine[name], written[name].to(mine[name])) for name in mine):
                state |= self.weights.rounded(mine)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin if training has ended before it was time, and round what is left to round."""
        if self.weights is None:
            return
        if not self.weights.begun:
            if self.begin != 1.0:
                warnings.warn(
                    f"{type(self).__name__}(begin={self.begin}): training ended at step {self._clock}, before step "
                    f"{self._begin_at}: its weights are rounded now, and have not been trained so. Write a smaller begin",
                    stacklevel=2,
                )
            self.weights.begin()
        self._settle()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Likewise with what has been put in the model's place at the very end, and count the values."""
        if self.weights is not None and self.weights.begun:
            self._settle()
            self.distinct_values = {n: self._distinct(n, p.detach()) for n, p in self.weights.parameters.items()}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave weights of few values, even after half a step, and no hook."""
        self.on_validation_batch_end(trainer, pl_module, None, None, 0)
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no hook behind; if this is a spawned process, send the state home."""
        stop_explaining(trainer)
        if self.weights is not None:
            self.weights.detach()
            if stage == "fit" and trainer.is_global_zero:
                self._spawned.send(self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """What holds the weights, and when it begins; empty before training."""
        state = self._state()
        if state is not None or self.weights is None:
            return state or {}
        return {
            "form": self.form(),
            "begin_at": self._begin_at,
            "clock": self._clock,
            "weights": self.weights.state_dict(),
            "distinct_values": self.distinct_values,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts."""
        self._restored = state_dict or None

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or a spawned process, gets the state of the training, not its weights and optimizers."""
        gone: dict[str, Any] = {"weights": None, "_installed_on": [], "_put_by": {}}
        return {**vars(self), **gone, "_restored": self.state_dict() or None}

    def _state(self) -> dict[str, Any] | None:
        """The state that is newer than the weights': read from a checkpoint, or sent by a spawned fit."""
        sent = self._spawned.receive()
        if sent is not None:
            self._restored, self.weights, self.distinct_values = sent, None, sent["distinct_values"]
        return self._restored

    @property
    def _clock(self) -> int:
        """Steps since this callback began to count."""
        return self._clock_before + (self.weights.taken if self.weights else 0)

    def _go_on(self, weights: Weights, state: Mapping[str, Any]) -> None:
        if state["form"] != self.form():
            raise SparsityError(
                f"the checkpoint is that of a training with {type(self).__name__}({_written(state['form'])}), and this is "
                f"{type(self).__name__}({_written(self.form())}): resume with the same arguments, or start a new training "
                "from its weights (without ckpt_path)"
            )
        self._begin_at, self._clock_before = int(state["begin_at"]), int(state["clock"])
        weights.load_state_dict(state["weights"])

    def _install(self, trainer: Trainer) -> None:
        assert self.weights is not None
        self._installed_on = list(trainer.optimizers)
        self.weights.install(trainer.optimizers)

    def _settle(self) -> None:
        assert self.weights is not None
        if self._others_stand_in():
            self.weights.adopt()
        self.weights.settle()

    def _others_stand_in(self) -> bool:
        """Whether something else than what it wrote is in the parameters; torch counts no writes through ``.data``."""
        assert self.weights is not None
        written = self.weights.written()
        return not all(torch.equal(weight, written[name]) for name, weight in self.weights.parameters.items())

    def _distinct(self, name: str, weight: Tensor) -> int:
        weight = weight.mT if name in self._inputs_first else weight
        rows = weight.reshape(len(weight), -1) if self.form().get("per") == "row" else weight.reshape(1, -1)
        return max(len(row[row != 0].unique()) for row in rows)

    def _parameters(self, trainer: Trainer, pl_module: LightningModule) -> Targets:
        """Those that are named, or else those that an optimizer trains: a teacher is left alone, as is an average."""
        found = sparsifiable(pl_module, self.include, self.exclude)
        if self.include is not None:
            return found
        trained = trained_in(pl_module, trainer.optimizers)
        mine = Targets({name: parameter for name, parameter in found.items() if id(parameter) in trained})
        mine.inputs_first = found.inputs_first & mine.keys()
        if not mine:
            raise SparsityError(
                f"no optimizer trains a weight that {type(self).__name__} would take ({', '.join(found)}): give them to an "
                "optimizer, or name others with include=[...]"
            )
        return mine

    def _steps_before(self, trainer: Trainer) -> int:
        """Steps from where this callback starts to where it begins."""
        if not trainer.lightning_module.automatic_optimization or isinstance(self.begin, int):
            total = None
        else:
            total = optimizer_steps(trainer, self._epochs, to_come=trainer.global_step > 0)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            total = int(trainer.fast_dev_run)  # type: ignore[attr-defined]
            return min(to_step(self.begin, total), total - 1)
        if total is None and isinstance(self.begin, float) and self.begin > 0:
            raise self._unknown_length()
        return to_step(self.begin, total)

    def _unknown_length(self) -> SparsityError:
        return SparsityError(
            f"{type(self).__name__}(begin={self.begin}) is a share of the training, and its length is not known here (manual "
            "optimization, or data without a length): write begin= in optimizer steps, such as 1000, or begin=0"
        )


def _written(form: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in form.items())


def _put(values: Mapping[str, Tensor], weights: Weights) -> None:
    for name, value in values.items():
        weights.parameters[name].data.copy_(value)
