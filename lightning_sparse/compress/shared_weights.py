"""Weights that share the entries of a codebook while they are trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_sparse.compress.around_steps import AroundSteps
from lightning_sparse.compress.hashing import hashed
from lightning_sparse.compress.levels import MOST, Levels, codebook, in_halves
from lightning_sparse.engine.distributed import average
from lightning_sparse.engine.hooks import is_elementwise, nested
from lightning_sparse.errors import SparsityError, check_choice, check_count, check_seed


class SharedWeights:
    """Ties each living weight to an entry of a codebook, and trains the entries (Han et al. 2016, arXiv 1510.00149).

    Before a step each weight's gradient becomes the mean of the gradients of all weights at its entry, so that an optimizer
    which moves each weight by its own gradient moves them alike. After it, rounding apart, they are still one value; the
    mean is written. Which weight belongs to which entry is decided once, by k-means. A weight that dies leaves its entry, and
    one that is born moves alone for a step, and joins the entry that is nearest to it then.

    The paper takes the sum, with a learning rate to match. For Adam this is the same. With SGD the mean is the ordinary step,
    projected on what shared weights can do; the sum is that many times longer as there are weights at an entry, and a network
    with a layer of 600 x 600 learned nothing by it, at the rate at which it had learned, and at a tenth of it.

    Install the sparsity engine first, as for :class:`~lightning_sparse.compress.quantised_weights.QuantisedWeights`.

    Args:
        parameters: by name.
        entries: of a codebook, from 2 to 256.
        codebook_of: one codebook for each ``"layer"``, or for the ``"network"``.
        assignment: ``"kmeans"``, or ``"hash"``: at random by ``seed``, each with a random sign (HashedNets, Chen et al. 2015,
            arXiv 1504.04788), so that seed and entries say everything. A control: what sharing costs without looking.
        seed: of the hash.

    Raises:
        SparsityError: on an argument out of range, and in :meth:`install`.

    Example:
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 1.0], [1.5, 4.0]]))
        >>> optimizer = torch.optim.SGD(layer.parameters(), 0.5)
        >>> weights = SharedWeights({"weight": layer.weight}, entries=2)
        >>> weights.install([optimizer])
        >>> weights.begin()
        >>> layer.weight.tolist()
        [[0.0, 1.25], [1.25, 4.0]]
        >>> layer.weight.grad = torch.tensor([[0.0, -1.0], [0.5, 1.0]])
        >>> optimizer.step()
        >>> layer.weight.tolist()
        [[0.0, 1.375], [1.375, 3.5]]
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        entries: int,
        *,
        codebook_of: str = "layer",
        assignment: str = "kmeans",
        seed: int = 0,
    ) -> None:
        self.count = check_count("entries", entries, 2, most=MOST)
        whole = check_choice("codebook_of", codebook_of, ("layer", "network")) == "network"
        self._hashed = check_choice("assignment", assignment, ("kmeans", "hash")) == "hash"
        self._seed = check_seed(seed)
        self.parameters = dict(parameters)
        self._groups = {"": list(parameters)} if whole else {name: [name] for name in parameters}
        self._group_of = {name: group for group, names in self._groups.items() for name in names}
        # Of each group the entries, behind them their negatives if it is hashed, and a zero for weights at no entry.
        self._values: dict[str, Tensor] = {}
        self._numbers: dict[str, Tensor] = {}
        self._at_entry: dict[str, Tensor] = {}
        self._counts: dict[tuple[str, ...], Tensor] = {}  # of weights at each entry, until an assignment changes
        self._versions: dict[str, int] = {}
        self._steps = AroundSteps(self.parameters, self.before_step, self.after_step)

    @property
    def begun(self) -> bool:
        """Whether the weights are shared."""
        return bool(self._values)

    @property
    def taken(self) -> int:
        """Optimizer steps since it was made, those before :meth:`begin` among them."""
        return self._steps.taken

    def begin(self) -> None:
        """Find the codebooks, write each weight's entry, and let the optimizers forget what they know of single weights."""
        spreads = {}
        for group, names in self._groups.items():
            living = torch.cat([weight[weight != 0] for weight in map(self._flat, names)])
            spreads[group] = living.square().mean().sqrt().nan_to_num(0.0)  # of no weight, 0
            if self._hashed:
                self._values[group] = living.new_zeros(2 * self.count + 1)
            else:
                entries = codebook(living, self.count).entries[0].to(living)
                self._values[group] = torch.cat([entries, entries.new_zeros(1)])
            for name in names:
                self._assign(name, self._nearest(name))
        for optimizer in (each for inner in self._steps.inner for each in nested(inner)):
            for parameter in self.parameters.values():
                optimizer.state.pop(parameter, None)
        if self._hashed:
            self._tie(self.parameters)
            # Means of weights at random are near zero, from where no gradient leads: they get the spread of the weights.
            for group, names in self._groups.items():
                living = torch.cat([weight[weight != 0] for weight in map(self._flat, names)])
                self._values[group] *= spreads[group] / living.square().mean().sqrt().nan_to_num(1.0).clamp_min(1e-30)
        for name in self.parameters:
            self._write(name)

    def install(self, optimizers: Sequence[Optimizer]) -> None:
        """Hook into the optimizers and those inside them, after whatever else masks or moves weights.

        Raises:
            SparsityError: if one is not known to move each weight by its own gradient alone.
        """
        self._steps.install(optimizers)
        mixing = next((each for each in self._steps.inner if not is_elementwise(each)), None)
        if mixing is not None:
            self._steps.detach()
            raise SparsityError(
                f"{type(mixing).__name__} is not known to move each weight by its own gradient alone, so that weights which "
                "share an entry would not move alike: train with SGD, Adam, AdamW or another of torch's that do"
            )

    def detach(self) -> None:
        """Remove every hook; the weights stay shared."""
        self._steps.detach()

    def before_step(self, names: Sequence[str] | None = None) -> None:
        """Give each weight the mean of the gradients of all weights at its entry (of all parameters, or of these)."""
        if not self.begun:
            return
        moved = [
            name for name in (self.parameters if names is None else names) if self.parameters[name].grad is not None
        ]
        groups = {group: [name for name in mine if name in moved] for group, mine in self._groups.items()}
        gradients: dict[str, Any] = {name: self.parameters[name].grad for name in moved}
        means = {group: self._means(group, mine, gradients) for group, mine in groups.items() if mine}
        average(means)  # on a GPU the order of additions, and so the last bit, is another one on every rank
        for group, mean in means.items():
            for name in groups[group]:
                gradient = gradients[name]
                tied = mean.to(gradient.dtype).index_select(0, self._numbers[name]).view_as(gradient)
                tied += gradient * (1 - self._at_entry[name]).view_as(
                    gradient
                )  # that of a weight at no entry is its own
                gradient.copy_(tied)

    def after_step(self, names: Sequence[str] | None = None) -> None:
        """Let the dead leave and the newborn join, and write one value for each entry."""
        if not self.begun:
            return
        joining = {}
        for name in self.parameters if names is None else names:
            living = torch.ne(self._flat(name), 0, out=torch.empty_like(self._at_entry[name]))
            if not torch.equal(living, self._at_entry[name]):
                stays, nowhere = (living * self._at_entry[name]).bool(), len(self._values[self._group_of[name]]) - 1
                joining[name] = torch.where(stays, self._numbers[name], self._nearest(name))
                self._assign(name, self._numbers[name].masked_fill(~stays, nowhere))
        self._tie(self.parameters if names is None else names)  # the newborn take a value, and have no say in it yet
        for name, numbers in joining.items():
            self._assign(name, numbers)
            self._write(name)

    def moved(self) -> bool:
        """Whether torch has counted a write to a weight, by somebody else, since the entries were written."""
        return any([self._versions.get(name) != weight._version for name, weight in self.parameters.items()])

    def written(self) -> dict[str, Tensor]:
        """What stands in the parameters, unless somebody else has written to them, also through ``.data``."""
        return {name: self._spread(name, self._values[group]) for name, group in self._group_of.items()}

    def adopt(self) -> None:
        """Take what somebody else has put into the parameters: the mean at each entry."""
        self.after_step()

    @torch.no_grad()
    def rounded(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Other weights under the same names, such as an average's: the mean of all that are at one entry."""
        groups = {group: [name for name in mine if name in weights] for group, mine in self._groups.items()}
        values = {group: self._means(group, mine, weights) for group, mine in groups.items()}
        return {name: self._spread(name, values[self._group_of[name]]).to(weight) for name, weight in weights.items()}

    def settle(self) -> None:
        """Round the entries to float16, and write them: what is trained after this begins with these."""
        for values in self._values.values():
            values.copy_(torch.from_numpy(in_halves(values.cpu().double().numpy())))
        for name in self.parameters:
            self._write(name)

    def levels_of(self, name: str) -> Levels:
        """The values that the living weights of a parameter may take; exact in float16 after :meth:`settle`."""
        return Levels(self._values[self._group_of[name]][:-1].float().sort().values[None], "entries")

    def entries_of(self, name: str) -> Levels:
        """The entries of a hashed codebook, without their negatives, in the order that numbers count them."""
        return Levels(self._values[self._group_of[name]][: self.count].float()[None], "entries")

    def state_dict(self) -> dict[str, Any]:
        """Entries, and which weight belongs to which; empty before :meth:`begin`."""
        numbers = {name: numbers.short() for name, numbers in self._numbers.items()}
        return {"values": dict(self._values), "numbers": numbers} if self.begun else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there, and write the entries."""
        if not state:
            return
        for group, names in self._groups.items():
            self._values[group] = state["values"][group].to(self._flat(names[0]), copy=True)
        for name in self.parameters:
            numbers = state["numbers"][name].to(self.parameters[name].device, torch.int32)
            if len(numbers) != self.parameters[name].numel():
                raise ValueError(f"{name!r} has {len(numbers)} numbers")
            self._assign(name, numbers)
            self._write(name)

    def _flat(self, name: str) -> Tensor:
        weight = self.parameters[name].detach().reshape(-1)
        return weight if weight.dtype == torch.float64 else weight.float()

    def _nearest(self, name: str) -> Tensor:
        """The number of the entry where each weight belongs, int32; the last number for zeros."""
        weight, values = self._flat(name), self._values[self._group_of[name]]
        if self._hashed:
            nearest = hashed(name, len(weight), self.count, self._seed).to(weight.device)
        else:
            entries, order = values[:-1].sort()
            nearest = order[torch.bucketize(weight, (entries[1:] + entries[:-1]) / 2)]
        return torch.where(weight != 0, nearest, len(values) - 1).int()

    def _assign(self, name: str, numbers: Tensor) -> None:
        self._numbers[name], self._counts = numbers, {}
        self._at_entry[name] = (numbers != len(self._values[self._group_of[name]]) - 1).to(self._flat(name).dtype)

    def _sums(self, group: str, names: Sequence[str], tensors: Mapping[str, Tensor], sign: int = -1) -> Tensor:
        """Of each number the sum over the weights that have it; an entry's negative counts with this sign."""
        sums = torch.zeros(len(self._values[group]), dtype=torch.float64, device=self._values[group].device)
        for name in names:
            sums.index_add_(0, self._numbers[name], tensors[name].detach().reshape(-1).to(sums))
        if self._hashed:
            of_entries = sums[: self.count] + sign * sums[self.count : -1]
            sums = torch.cat([of_entries, sign * of_entries, sums[-1:]])
        sums[-1] = 0.0
        return sums

    def _means(self, group: str, names: Sequence[str], tensors: Mapping[str, Tensor]) -> Tensor:
        """The mean of weights or gradients at each entry, float64; of an entry without any, and of no entry, 0."""
        key = (group, *names)
        if key not in self._counts:
            self._counts[key] = self._sums(group, names, self._at_entry, sign=1)
        return self._sums(group, names, tensors) / self._counts[key].clamp(min=1)

    @torch.no_grad()
    def _tie(self, names: Collection[str]) -> None:
        for group, mine in self._groups.items():
            moved = [name for name in mine if name in names]
            if moved:
                means = self._means(group, moved, self.parameters).to(self._values[group])
                none = self._counts[(group, *moved)] == 0
                self._values[group] = torch.where(none, self._values[group], means)
                for name in mine:
                    self._write(name)

    def _spread(self, name: str, values: Tensor) -> Tensor:
        weight = self.parameters[name]
        return values.index_select(0, self._numbers[name]).view_as(weight).to(weight.dtype)

    def _write(self, name: str) -> None:
        self.parameters[name].data.copy_(self._spread(name, self._values[self._group_of[name]]))
        self._versions[name] = self.parameters[name]._version
