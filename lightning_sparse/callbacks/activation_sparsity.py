"""Train a network whose layers read few of their inputs."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_sparse.anatomy.patterns import check_patterns
from lightning_sparse.callbacks.trainer.one_of_a_kind import OneOfAKind
from lightning_sparse.callbacks.trainer.optimizer_steps import optimizer_steps
from lightning_sparse.callbacks.trainer.refusals import refuse_sharded
from lightning_sparse.callbacks.trainer.resumed_from import restoring
from lightning_sparse.callbacks.trainer.spawned_state import SpawnedState
from lightning_sparse.engine.distributed import add_up
from lightning_sparse.engine.schedules import Curve, from_plain
from lightning_sparse.ephemeral.activations import consumers, install, refuse_lazy, restored, uninstall
from lightning_sparse.ephemeral.selection import RULES, Selection
from lightning_sparse.errors import SparsityError, check_choice, check_count, check_share


class ActivationSparsity(OneOfAKind):
    """Let each Linear and Conv layer but the first read few of its inputs, others for each example.

    The inputs that lose are zero for the layer that reads them, and get no gradient. Weights stay where and what they are, so
    it goes with any sparsity callback: a layer then does living weights times active inputs.

    - ``"k_winners"`` (Ahmad & Scheinkman 2019, arXiv 1903.11257): the k largest of ``x * exp(boost * (density - duty))`` win,
      where the duty is the share of the latest ``period`` examples in which a unit won with a positive value. So units that
      seldom win are preferred, by less from epoch to epoch. In eval mode ``eval_factor`` times as many win.
    - ``"top_k"`` (Xiao et al. 2020, arXiv 1905.10510): the k largest win.
    - ``"threshold"`` (TEAL: Liu et al. 2024, arXiv 2408.14690): inputs above a magnitude pass, which is the mean, over the
      latest ``period`` examples, of the batches' own quantiles. How many pass differs from example to example.

    *A checkpoint looks dense*: its weights load strictly into the same model, which computes something else without this
    callback. The rule, and all that it remembers, is in the callback's state; with it
    :func:`~lightning_sparse.ephemeral.activations_of` gives any model its activations. After a fit the hooks stay on the
    module, because its weights mean nothing without them; after ``ddp_spawn`` they were on the other processes' modules.

    *Robustness* measured on such a network is likely to be an illusion: an attack sees the winners alone. The check
    ``straight_through`` of :func:`~lightning_sparse.measure.measure_robustness` is made for it.

    Args:
        density: share of the inputs that a layer reads, in (0, 1], or a :class:`~lightning_sparse.Curve` of it over the
            optimizer steps. Of convolutions all positions of all channels of an example compete.
        rule: ``"k_winners"``, ``"top_k"`` or ``"threshold"``.
        boost: of ``"k_winners"``, >= 0; None is 1.5.
        boost_decay: what boost is multiplied by for each epoch that has passed, in [0, 1].
        eval_factor: how many times as many win in eval mode, >= 1; None is 1.5 for ``"k_winners"`` and 1 for ``"top_k"``.
        period: examples that a duty or a threshold is the mean of, at least.
        include: shell-style patterns of the names of weights whose layers are meant; None takes all Linear and Conv layers
            but the one that the model has first.
        exclude: patterns of layers to leave alone.

    Attributes:
        selections: what selects, by the name of the weight that reads it; empty before training.

    Raises:
        SparsityError: on arguments out of range; when training starts, on a model without such layers; after the first batch,
            on layers whose hook never ran, as that of MultiheadAttention's ``out_proj``.

    Example:
        >>> from lightning_sparse import GradualPruning
        >>> callbacks = [GradualPruning(0.9), ActivationSparsity(0.1)]
        >>> falling = ActivationSparsity(Curve(1.0).then(0.5, 0.1, "linear"), rule="top_k")
    """

    def __init__(
        self,
        density: float | Curve,
        *,
        rule: str = "k_winners",
        boost: float | None = None,
        boost_decay: float = 0.85,
        eval_factor: float | None = None,
        period: int = 1000,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.rule = check_choice("rule", rule, RULES)
        self.density = _check_density(density)
        if boost is not None and rule != "k_winners":
            raise SparsityError(f"boost={boost!r} is of rule='k_winners', and {rule!r} has none: leave it out")
        if eval_factor is not None and rule == "threshold":
            raise SparsityError(f"eval_factor={eval_factor!r}: a threshold is the same in eval mode: leave it out")
        self.boost = _check_least("boost", {"k_winners": 1.5}.get(rule, 0.0) if boost is None else boost, 0.0)
        usual = 1.5 if rule == "k_winners" else 1.0
        self.eval_factor = _check_least("eval_factor", usual if eval_factor is None else eval_factor, 1.0)
        self.boost_decay, self.period = (
            check_share("boost_decay", boost_decay),
            check_count("period", period, write=1000),
        )
        self.include, self.exclude = check_patterns("include", include), check_patterns("exclude", exclude)
        self.selections: dict[str, Selection] = {}
        self._on: weakref.ref[LightningModule] | None = None
        self._curve: Curve | None = None  # in steps; None before training
        self._start = 0
        self._settled = self._fired = False
        self._restored: dict[str, Any] | None = None
        self._spawned = SpawnedState()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a second one; forget an earlier training, unless this one goes on with it."""
        super().setup(trainer, pl_module, stage)
        refuse_sharded(trainer, "its layers cannot be told by their weights")
        self._restored, self._on, self._fired = self.state_dict() or None, None, False
        if stage == "fit" and trainer.ckpt_path is None and trainer.global_step == 0:
            self._restored, self._curve = None, None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook the layers, before any of them runs and after the module has made them."""
        if self._on is not None and self._on() is pl_module:
            return
        refuse_lazy(pl_module)
        state = self.state_dict() or None
        self.selections, self._restored = {}, None
        if state is None:
            uninstall(pl_module)
            layers = consumers(pl_module, self.include, self.exclude)
            self.selections = {name: Selection(layer, self.rule, self.period) for name, layer in layers.items()}
            self._set(self.density.start if trainer.state.fn == "fit" else self.density.final, self.boost)
            install(layers, self.selections)
        else:
            with restoring(type(self).__name__):
                self._check_same(state)
                self.selections = restored(pl_module, state)
                self._start, self._curve = int(state["start"]), state["curve"] and from_plain(state["curve"])
        for selection in self.selections.values():
            selection.to(pl_module.device)
        self._on = weakref.ref(pl_module)

    on_validation_start = on_test_start = on_predict_start = on_fit_start

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say when the density changes, in optimizer steps."""
        if self._curve is None:
            self._start = trainer.global_step
            total = None
            if self.density.needs_total:
                total = optimizer_steps(trainer, trainer.max_epochs, to_come=True)
                if total is None or not pl_module.automatic_optimization:
                    raise SparsityError(
                        "the length of the training is not known here (manual optimization, or data without a length): write "
                        "the curve's times in optimizer steps, such as Curve(1.0).then(1000, 0.1, 'linear')"
                    )
            self._curve = self.density.resolve(total)
        self._fired = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set what this step keeps; passes since the last one, as of a score of the whole network, do not count."""
        assert self._curve is not None
        density = self._curve(trainer.global_step - self._start)
        self._set(density, self.boost * self.boost_decay**trainer.current_epoch)
        self._settled = False
        for selection in self.selections.values():
            selection.forget()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring duties and thresholds up to date, over all ranks."""
        self._settled = True
        add_up([part for selection in self.selections.values() for part in (selection.total, selection.count)])
        for selection in self.selections.values():
            selection.settle()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """The same where Lightning saw no backward pass; after the first batch, refuse layers whose hook did not run."""
        if not self._settled:
            self.on_after_backward(trainer, pl_module)
        self._check_fired()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """After the first batch, refuse layers whose hook did not run."""
        if not trainer.sanity_checking:
            self._check_fired()

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """If this is a spawned process, send the state home."""
        if stage == "fit" and trainer.is_global_zero and self.selections:
            self._spawned.send(self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The rule, and what each layer's selection remembers; empty before training."""
        sent = self._spawned.receive()
        if sent is not None:
            self._restored, self._on, self.selections = sent, None, {}
        if self._restored is not None or not self.selections:
            return self._restored or {}
        return {
            **self._form(),
            "start": self._start,
            "curve": self._curve and self._curve.plain(),
            "layers": {name: selection.state_dict() for name, selection in self.selections.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the layers are hooked."""
        self._restored = state_dict or None

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or a spawned process, gets the state and no hook."""
        return {**vars(self), "_restored": self.state_dict() or None, "selections": {}, "_on": None}

    def _form(self) -> dict[str, Any]:
        names = ("rule", "boost_decay", "eval_factor", "period")
        return {"asked": self.density.plain(), **{name: getattr(self, name) for name in names}}

    def _check_same(self, state: Mapping[str, Any]) -> None:
        for name, value in self._form().items():
            if state[name] != value:
                raise SparsityError(
                    f"{name}={value!r}, and the checkpoint was trained with {name}={state[name]!r}: resume with the same, or "
                    "start a new training from its weights (without ckpt_path)"
                )

    def _set(self, density: float, boost: float) -> None:
        for selection in self.selections.values():
            selection.boost.fill_(boost)
            selection.density.fill_(density)
            selection.eval_density.fill_(min(1.0, density * self.eval_factor))

    def _check_fired(self) -> None:
        if self._fired:
            return
        silent = [name for name, selection in self.selections.items() if not float(selection.calls)]
        if silent:
            raise SparsityError(
                f"the hook of {silent[0]!r} did not run in the first batch: its layer is not called with its input as first "
                f"argument (as MultiheadAttention's out_proj), or was compiled before: write exclude=[{silent[0]!r}], or "
                "torch._dynamo.reset() before the fit"
            )
        self._fired = True


def _check_density(density: object) -> Curve:
    curve = density if isinstance(density, Curve) else Curve(check_share("density", density))
    if min(curve.values) <= 0.0:
        raise SparsityError("density=0 leaves a layer nothing to read: write a share in (0, 1], such as 0.1")
    return curve


def _check_least(name: str, value: object, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < torch.inf:
        raise SparsityError(f"{name}={value!r} is not a finite number of at least {least:g}: write {name}=1.5")
    return float(value)
