"""Count the FLOPs of a training, dense and under the masks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lightning_sparse.anatomy.first_tensor import first_tensor
from lightning_sparse.anatomy.layer_calls import LayerCall


@dataclass(frozen=True)
class LayerFlops:
    """What one dense weight costs in the training on one batch.

    As in Evci et al. 2020 (RigL, arXiv 1911.11134, appendix H), a backward pass costs twice a forward pass: once for the
    gradient of the input (of the first layer too, which needs none), and once for that of the weight.
    """

    passes: int = 0  # FLOPs of the forward pass and of the gradient of the input
    gradient: int = 0  # FLOPs of the gradient of the weight


def layer_flops(calls: Iterable[LayerCall]) -> dict[str, LayerFlops]:
    """Add up by weight what one batch of training costs.

    What runs under ``no_grad`` (a teacher, a target network) costs only its forward pass, and a frozen weight has no
    gradient of its own. The calls are those of one batch.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_sparse.anatomy.layer_calls import CallRecorder
        >>> net = nn.Linear(20, 5)
        >>> with CallRecorder(net) as recorder:
        ...     loss = net(torch.rand(8, 20)).sum()
        >>> layer_flops(recorder.calls)  # 2 * 100 weights * 8 examples, twice and once
        {'weight': LayerFlops(passes=3200, gradient=1600)}
    """
    found: dict[str, LayerFlops] = {}
    for call in calls:
        before = found.get(call.name, LayerFlops())
        passes, gradient = call.flops * (1 + call.trains), call.flops * call.learns
        found[call.name] = LayerFlops(before.passes + passes, before.gradient + gradient)
    return found


def batch_elements(batch: Any) -> int:
    """Return the size of a batch, to compare it with others: the number of elements of the first tensor in it, or 1.

    Example:
        >>> import torch
        >>> batch_elements({"image": torch.zeros(8, 3), "label": torch.zeros(8)}), batch_elements(["no", "tensor"])
        (24, 1)
    """
    first = first_tensor(batch)
    return 1 if first is None else first.numel()


class TrainingFlops:
    """Add up the FLOPs of a training, dense and sparse, at the cost of an addition a batch.

    The sparse count is theoretical: each pass costs a layer's dense FLOPs times its density at that step, which dense kernels
    do not save. Growth reads the gradients of dead connections too: in the step before such an update (in every step, if a
    grow score reads them all) the gradient of the weight counts as dense, as in appendix H of Evci et al. 2020. Layers
    without a mask count as dense. Activations, norms, biases, embeddings, the products inside attention, validation and the
    batches that a score of the whole network reads are not counted.

    Sums are of integers, so that they are exact, whenever they are read.

    Example:
        >>> flops = TrainingFlops()
        >>> flops.set_masks({"w": 25}, {"w": 100})
        >>> flops.set_cost({"w": LayerFlops(passes=3200, gradient=1600)}, 160)
        >>> flops.add_batch(160, stepped=True)
        >>> flops.dense, flops.sparse
        (4800.0, 1200.0)
        >>> flops.set_masks({"w": 50}, {"w": 100}, dense_gradient=["w"])  # that step's gradient was dense: 800 + 1600
        >>> flops.sparse
        2400.0
    """

    def __init__(self) -> None:
        self.layers: dict[str, LayerFlops] = {}
        self._measured = 1
        self._seen = 0
        # By masked layer, sums over all batches: of connections used, and of those whose gradient was computed.
        self._used: dict[str, int] = {}
        self._graded: dict[str, int] = {}
        # The current masks, and the batches under them: all, those of the last optimizer step, and those since that step.
        self._living: dict[str, int] = {}
        self._total: dict[str, int] = {}
        self._always: frozenset[str] = frozenset()
        self._since = self._last = self._open = 0

    def set_cost(self, layers: Mapping[str, LayerFlops], size: int) -> None:
        """Set what a batch of :func:`batch_elements` ``size`` costs, once; others cost in proportion."""
        if not self.layers:
            self.layers, self._measured = dict(layers), size

    def add_batch(self, size: int, stepped: bool) -> None:
        """Add a batch, and whether an optimizer step ended with it."""
        self._since += size
        self._open += size
        if stepped:
            self._last, self._open = self._open, 0

    def set_masks(
        self,
        living: Mapping[str, int],
        total: Mapping[str, int],
        *,
        dense_gradient: Collection[str] = (),
        always: Collection[str] = (),
    ) -> None:
        """Set new masks, after the batches of the old ones.

        Args:
            living: number of living connections, by parameter name.
            total: number of all connections, by parameter name.
            dense_gradient: the layers whose dense gradient this update read, in the last step.
            always: the layers whose dense gradient is read in every step from now on.
        """
        self._settle()
        for name in {*dense_gradient} - self._always:
            self._graded[name] += self._last * (self._total[name] - self._living[name])
        self._living, self._total, self._always = dict(living), dict(total), frozenset(always)

    def _settle(self) -> None:
        for name, living in self._living.items():
            graded = self._total[name] if name in self._always else living
            self._used[name] = self._used.get(name, 0) + self._since * living
            self._graded[name] = self._graded.get(name, 0) + self._since * graded
        self._seen, self._since = self._seen + self._since, 0

    @property
    def dense(self) -> float:
        """FLOPs so far, had the network been dense."""
        self._settle()
        return sum(layer.passes + layer.gradient for layer in self.layers.values()) * self._seen / self._measured

    @property
    def sparse(self) -> float:
        """FLOPs so far, counted under the masks."""
        self._settle()
        cost = 0.0
        for name, layer in self.layers.items():
            total = self._total.get(name, 1)
            used, graded = (sums.get(name, self._seen) for sums in (self._used, self._graded))
            cost += (layer.passes * used + layer.gradient * graded) / total
        return cost / self._measured

    def state_dict(self) -> dict[str, Any]:
        """The counts so far, in numbers and dicts."""
        self._settle()
        layers = {name: asdict(layer) for name, layer in self.layers.items()}
        sums = {"used": dict(self._used), "graded": dict(self._graded), "total": dict(self._total)}
        return {"layers": layers, "measured": self._measured, "seen": self._seen, **sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave; :meth:`set_masks` comes next."""
        self.layers = {name: LayerFlops(**layer) for name, layer in state["layers"].items()}
        self._measured, self._seen = state["measured"], state["seen"]
        self._used, self._graded, self._total = (dict(state[sums]) for sums in ("used", "graded", "total"))
