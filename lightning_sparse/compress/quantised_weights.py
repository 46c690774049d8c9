"""Weights that take the values of an even grid while they are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_sparse.anatomy.parameters import inputs_first
from lightning_sparse.compress.around_steps import AroundSteps
from lightning_sparse.compress.levels import MOST, Levels, even_grid, levels_from
from lightning_sparse.errors import check_choice, check_count, check_flag

# Steps between two fits of a grid. A fit takes as long as tens of roundings, and in so few steps a range moves little.
_EVERY = 50
_SAMPLE = 2**14  # weights that a grid is fitted to, at most, beside the smallest and the largest
_IN_A_ROW = 256  # of one row


class QuantisedWeights:
    """Keeps the weights on a grid of few values, and trains latent ones, by the straight-through estimator.

    Between steps a parameter holds the quantised values, so that every forward pass, validation and checkpoint sees them, and
    its gradient is that of the quantised network. While an optimizer steps it holds the latent weights, which are kept here
    otherwise (Courbariaux et al. 2015, arXiv 1511.00363; Jacob et al. 2018, arXiv 1712.05877, for the grid). A weight that is
    exactly zero is dead or not yet born: it stays zero and needs no level.

    Masks go well with it: install the sparsity engine first, so that the dead are zero before the latent weights are taken.
    Writes go through ``.data``, and are none that the engine would take for somebody else's.

    Args:
        parameters: by name; as :func:`~lightning_sparse.anatomy.parameters.sparsifiable` returns them, they say which have
            their outputs along dimension 1.
        levels: how many values, from 2 to 256.
        per: one grid for each ``"tensor"``, or for each ``"row"``, which is an output.
        symmetric: the grid is symmetric about zero, so that one number says it; an odd ``levels`` then has a level at zero.

    Raises:
        SparsityError: on an argument out of range, and in :meth:`install`.

    Example:
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 1.0], [2.0, 4.0]]))
        >>> optimizer = torch.optim.SGD(layer.parameters(), 0.35)
        >>> weights = QuantisedWeights({"weight": layer.weight}, levels=4)
        >>> weights.begin()
        >>> weights.install([optimizer])
        >>> layer.weight.tolist()
        [[0.0, 1.0], [2.0, 4.0]]
        >>> for _ in range(2):
        ...     layer.weight.grad = torch.tensor([[0.0, 0.0], [-1.0, 0.0]])
        ...     optimizer.step()
        >>> layer.weight.tolist(), round(float(weights.latent["weight"][1, 0]), 2)
        ([[0.0, 1.0], [3.0, 4.0]], 2.7)
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], levels: int, *, per: str = "tensor", symmetric: bool = False
    ) -> None:
        self.count = check_count("levels", levels, 2, most=MOST)
        self._per_row = check_choice("per", per, ("tensor", "row")) == "row"
        self._symmetric = check_flag("symmetric", symmetric)
        self.parameters, self._turned = dict(parameters), inputs_first(parameters) if self._per_row else frozenset()
        self.latent: dict[str, Tensor] = {}
        self._levels: dict[str, Levels] = {}
        self._age: dict[str, int] = {}
        self._versions: dict[str, int] = {}
        self._steps = AroundSteps(self.parameters, self.before_step, self.after_step)

    @property
    def begun(self) -> bool:
        """Whether the weights are quantised."""
        return bool(self.latent)

    @property
    def taken(self) -> int:
        """Optimizer steps since it was made, those before :meth:`begin` among them."""
        return self._steps.taken

    def begin(self) -> None:
        """Take the weights as they are for the latent ones, fit the grids, and write the quantised values."""
        self.latent = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        for name in self.latent:
            self._fit(name)
            self._write(name)

    def install(self, optimizers: Sequence[Optimizer]) -> None:
        """Hook into the optimizers and those inside them, after whatever else masks or moves weights.

        Raises:
            SparsityError: if one is LBFGS.
        """
        self._steps.install(optimizers)

    def detach(self) -> None:
        """Remove every hook; the weights stay quantised."""
        self._steps.detach()

    def before_step(self, names: Sequence[str] | None = None) -> None:
        """Put the latent weights into the parameters (all, or these), with what has been added to the quantised ones."""
        if self.begun:
            for name in self.parameters if names is None else names:
                weight, latent = self.parameters[name], self.latent[name]
                if self._versions[name] != weight._version:  # an optimizer around others has begun to move it by itself
                    written = self._rounded(name, latent)
                    died = (weight == 0) & (written != 0)
                    latent += (weight.detach() - written).masked_fill(died, 0.0)
                    latent.masked_fill_(died, 0.0)
                weight.data.copy_(latent)

    def after_step(self, names: Sequence[str] | None = None) -> None:
        """Take what is in the parameters for the latent weights, and write their quantised values."""
        if self.begun:
            for name in self.parameters if names is None else names:
                self.latent[name].copy_(self.parameters[name].detach())
                self._age[name] += 1
                if self._age[name] >= _EVERY:
                    self._fit(name)
                self._write(name)

    def moved(self) -> bool:
        """Whether torch has counted a write to a weight, by somebody else, since the quantised values were written."""
        return any([self._versions.get(name) != weight._version for name, weight in self.parameters.items()])

    def written(self) -> dict[str, Tensor]:
        """What stands in the parameters, unless somebody else has written to them, also through ``.data``."""
        return {name: self._rounded(name, latent) for name, latent in self.latent.items()}

    def adopt(self) -> None:
        """Where somebody else has put other values into the parameters, take these for the latent weights."""
        for name, written in self.written().items():
            weight = self.parameters[name].detach()
            self.latent[name] = torch.where(weight == written, self.latent[name], weight)
            self._write(name)

    def rounded(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Other weights under the same names, such as an average's, on the present grids."""
        return {name: self._rounded(name, weight) for name, weight in weights.items()}

    def settle(self) -> None:
        """Nothing: the ends of every grid are exact in float16 already."""

    def levels_of(self, name: str) -> Levels:
        """The values that the living weights of a parameter take now."""
        return self._levels[name]

    def state_dict(self) -> dict[str, Any]:
        """Latent weights, grids and when they were fitted; empty before :meth:`begin`."""
        if not self.begun:
            return {}
        grids = {name: levels.entries[:, [0, -1]] for name, levels in self._levels.items()}
        return {"latent": dict(self.latent), "grids": grids, "age": dict(self._age)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there, and write the quantised values."""
        if not state:
            return
        for name, parameter in self.parameters.items():
            if state["latent"][name].shape != parameter.shape:
                raise ValueError(f"latent weights of {name!r} have the shape {tuple(state['latent'][name].shape)}")
            self.latent[name] = state["latent"][name].detach().to(parameter, copy=True)
            said = "end" if self._symmetric else "ends"
            self._levels[name] = levels_from(state["grids"][name].cpu().numpy(), said, self.count).to(parameter.device)
            self._age[name] = int(state["age"][name])
            self._write(name)

    def _fit(self, name: str) -> None:
        rows = _as_rows(self._outputs_first(name, self.latent[name]), self._per_row)
        if not self._per_row:
            living = rows[rows != 0][None]
            rows = living if living.numel() else rows[:, :1]
        lives = rows != 0
        stride = min(int(lives.sum()) // _SAMPLE, rows.shape[1] // _IN_A_ROW)
        if stride > 1:
            smallest = rows.masked_fill(~lives, torch.inf).amin(1, keepdim=True)
            largest = rows.masked_fill(~lives, -torch.inf).amax(1, keepdim=True)
            ends = torch.cat([smallest, largest], 1).nan_to_num(0.0, 0.0, 0.0)  # of a row without any, none
            rows = torch.cat([rows[:, ::stride], ends], 1)
            lives = rows != 0
        levels = even_grid(rows, lives, self.count, per_row=True, symmetric=self._symmetric)
        self._levels[name] = levels.to(self.latent[name].device)
        moves = bool((levels.entries[:, 0] < levels.entries[:, -1]).any())
        self._age[name] = 0 if moves else _EVERY  # weights that were all equal will not be so after the next step

    def _write(self, name: str) -> None:
        self.parameters[name].data.copy_(self._rounded(name, self.latent[name]))
        self._versions[name] = self.parameters[name]._version

    @torch.no_grad()
    def _rounded(self, name: str, weight: Tensor) -> Tensor:
        """What ``Levels.round`` gives, and zero where a weight is zero; written for speed, because every step needs it."""
        first = self._outputs_first(name, weight)
        rows, entries = _as_rows(first, self._per_row), self._levels[name].entries
        entries = entries.to(rows)
        low = entries[:, :1]
        step = ((entries[:, -1:] - low) / (self.count - 1)).clamp_min(2e-38)
        places = ((rows - low) / step).round_().clamp_(0, self.count - 1).nan_to_num_(0.0)
        numbers = places.int()
        if len(entries) > 1:
            numbers += torch.arange(len(entries), dtype=torch.int32, device=rows.device)[:, None] * self.count
        values = entries.reshape(-1).index_select(0, numbers.reshape(-1)).view_as(rows)
        values *= torch.ne(rows, 0, out=places)  # the dead stay dead
        values.add_(rows, alpha=0)  # NaN stays NaN, so that a training that has failed does not look as if it had not
        return self._outputs_first(name, values.view_as(first)).to(weight.dtype)

    def _outputs_first(self, name: str, weight: Tensor) -> Tensor:
        """A weight with its outputs along dimension 0, or one so turned as it was."""
        return weight.mT if name in self._turned else weight


def _as_rows(weight: Tensor, per_row: bool) -> Tensor:
    """A weight in one row, or in those of dimension 0; in float32 or float64."""
    wide = weight.detach() if weight.dtype == torch.float64 else weight.detach().float()
    return wide.reshape(len(wide) if per_row and wide.dim() > 1 else 1, -1)
