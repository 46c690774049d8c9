"""What a training does to its connections, measured from masks, updates and one batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lightning_sparse.anatomy.dead_units import cut_off_warnings, dead_units
from lightning_sparse.anatomy.flops import TrainingFlops, batch_elements, layer_flops
from lightning_sparse.anatomy.layer_calls import CallRecorder, is_compiled
from lightning_sparse.anatomy.layer_order import LayerOrder, layer_order
from lightning_sparse.engine.engine import Engine
from lightning_sparse.engine.lifetimes import Lifetimes, mean_age, median_age
from lightning_sparse.engine.scores.of_layer import needs_gradient_of


class Monitoring:
    """Follow one training: call :meth:`begin` before its first batch, then :meth:`batch` after each.

    :class:`~lightning_sparse.SparsityMonitor` calls this from the Trainer's hooks, and explains the metrics.

    Attributes:
        flops: what the training has cost so far.

    Example:
        >>> import torch
        >>> from lightning_sparse import Curve, Recipe, attach
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Linear(20, 5)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> engine = attach(optimizer, model, Recipe(Curve(0.9), turnover=Curve(0.2), grow="random", every=2))
        >>> monitoring = Monitoring()
        >>> monitoring.begin(model, {"all": engine})
        >>> for _ in range(4):
        ...     batch = torch.randn(8, 20)
        ...     optimizer.zero_grad()
        ...     model(batch).square().mean().backward()
        ...     optimizer.step()
        ...     if monitoring.batch(batch, stepped=True):
        ...         _ = monitoring.update(model)
        >>> metrics = monitoring.metrics()
        >>> {name: round(metrics[name], 3) for name in ("turnover", "ever_lived", "age/mean", "survivors", "flops/share")}
        {'turnover': 0.2, 'ever_lived': 0.14, 'age/mean': 3.2, 'survivors': 0.8, 'flops/share': 0.1}
    """

    def __init__(self) -> None:
        self.flops = TrainingFlops()
        self._lifetimes: dict[str, Lifetimes] = {}
        self._recorder: CallRecorder | None = None
        self.close()

    def close(self) -> None:
        """Let go of model and engines; the counts stay, and another :meth:`begin` goes on from them."""
        self._stop_recording()
        self._engines: dict[str, Engine] = {}
        self._updates: dict[str, int] = {}
        self._order = LayerOrder()
        self._dead: dict[str, Tensor] = {}
        self._warned: set[str] = set()
        self._first, self._turnover = True, 0.0

    def _stop_recording(self) -> None:
        if self._recorder is not None:
            self._recorder.close()
        self._recorder, self._losses = None, list[Tensor]()

    @property
    def ever_lived(self) -> float:
        """Share of the sparsifiable connections that have lived at some time, in [0, 1]."""
        total = sum(lifetimes.total for lifetimes in self._lifetimes.values())
        return sum(lifetimes.ever_lived for lifetimes in self._lifetimes.values()) / total if total else 1.0

    def begin(self, model: nn.Module, engines: Mapping[str, Engine]) -> None:
        """Take in what lives, and record how ``model`` runs its first batch.

        Each engine has a name, which has to be the same when the training is resumed.
        """
        self.close()
        self._engines = dict(engines)
        self._recorder = None if is_compiled(model) else CallRecorder(model)
        self._take_in()

    def before_backward(self, loss: Tensor) -> None:
        """Take in the loss of the first batch, without which the order of the layers stays unknown."""
        if self._recorder is not None:
            self._recorder.paused = True  # checkpointed activations are now computed again
            self._losses.append(loss)

    def after_backward(self) -> None:
        """Record again, because the model may run once more."""
        if self._recorder is not None:
            self._recorder.paused = False

    def batch(self, batch: Any, stepped: bool) -> bool:
        """Count a batch; ``stepped`` says whether an optimizer step ended with it.

        Returns:
            Whether to call :meth:`update`: the masks have changed, or this was the first batch.
        """
        size = batch_elements(batch)
        self.flops.add_batch(size, stepped)
        if self._first and self._recorder is not None:
            self.flops.set_cost(layer_flops(self._recorder.calls), size)
        first, self._first, self._turnover = self._first, False, 0.0
        return first or any(len(engine.history) != self._updates[name] for name, engine in self._engines.items())

    def update(self, model: nn.Module) -> list[str]:
        """Take in the present masks.

        Returns:
            Warnings about layers that nothing flows through and outputs that are constant, each layer once a training.
        """
        if self._recorder is not None:
            self._order = layer_order(model, self._recorder.calls, self._losses)
            self._stop_recording()
        self._take_in()
        masks = {name: mask for engine in self._engines.values() for name, mask in engine.masks.items()}
        dead = dead_units(model, masks, self._order.chains)
        self._dead = {name: units for name, units in dead.items() if name in masks}
        found = cut_off_warnings(dead, self._order.outputs)
        new = [message for name, message in found.items() if name not in self._warned]
        self._warned |= set(found)
        return new

    def _take_in(self) -> None:
        replaced, every_step, last_step = 0, list[str](), list[str]()
        living, total = dict[str, int](), dict[str, int]()
        for key, engine in self._engines.items():
            new = engine.history[self._updates.get(key, len(engine.history)) :]
            if new or key not in self._updates:
                step = new[-1].step if new else engine.clock
                lifetimes = self._lifetimes.setdefault(key, Lifetimes())
                if not any(engine.masks.removed):  # otherwise nothing is born any more, and the masks have other shapes
                    lifetimes.update(engine.masks, step)
            self._updates[key] = len(engine.history)
            replaced += sum(update.replaced for update in new)
            living |= {name: engine.masks.count(name) for name in engine.masks}
            total |= {name: weight.numel() for name, weight in engine.parameters.items()}
            grow = engine.recipe.scores["grow"]
            if needs_gradient_of(grow) and hasattr(grow, "observe"):
                every_step += engine.masks
            elif needs_gradient_of(grow) and any(update.born for update in new):
                last_step += engine.masks
        self._turnover = replaced / max(1, sum(living.values()))
        self.flops.set_masks(living, total, dense_gradient=last_step, always=every_step)

    def metrics(self, *, per_layer: bool = True) -> dict[str, float]:
        """The present values, by the names that :class:`~lightning_sparse.SparsityMonitor` explains."""
        masks, living = [engine.masks for engine in self._engines.values()], Counter[int]()
        for key, engine in self._engines.items():
            living.update(self._lifetimes[key].ages(engine.clock))
        total, alive = sum(mask.total for mask in masks), living.total()
        leaked = Counter[str]()
        for engine in self._engines.values():
            leaked.update(engine.leaks())
        found = {
            "sparsity": (total - alive - leaked.total()) / total,
            "turnover": self._turnover,
            "ever_lived": self.ever_lived,
            "age/mean": mean_age(living),
            "age/median": median_age(living),
            "survivors": sum(self._lifetimes[key].survivors for key in self._engines) / alive,
        }
        if self._dead:
            count = sum(len(units) for units in self._dead.values())
            found["dead_units"] = sum(int(units.sum()) for units in self._dead.values()) / count
        if per_layer:
            found |= {
                f"layer_sparsity/{name}": share for mask in masks for name, share in mask.layer_sparsity(leaked).items()
            }
            found |= {f"layer_dead_units/{name}": float(units.float().mean()) for name, units in self._dead.items()}
        return found | self.costs()

    def costs(self) -> dict[str, float]:
        """FLOPs so far, if known: dense and, if there are masks, sparse and the ratio of the two."""
        dense, sparse = self.flops.dense, self.flops.sparse
        if not dense or not self._lifetimes:
            return {"flops/dense": dense} if dense else {}
        return {"flops/dense": dense, "flops/sparse": sparse, "flops/share": sparse / dense}

    def state_dict(self) -> dict[str, Any]:
        """How long each connection has lived and what the training has cost, loadable with ``weights_only=True``."""
        lifetimes = {key: lifetimes.state_dict() for key, lifetimes in self._lifetimes.items()}
        return {"lifetimes": lifetimes, "flops": self.flops.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        for key, lived in state["lifetimes"].items():
            self._lifetimes[key] = Lifetimes()
            self._lifetimes[key].load_state_dict(lived)
        self.flops.load_state_dict(state["flops"])

    def __getstate__(self) -> dict[str, Any]:
        """A copy keeps the counts, and records nothing."""
        copy = Monitoring()
        copy._lifetimes, copy.flops = self._lifetimes, self.flops
        return vars(copy)
