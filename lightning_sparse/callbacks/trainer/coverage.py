"""Say how much of a model its sparsity is about: at the start, and when more of it becomes trainable."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lightning_sparse.anatomy.parameters import default_names, names_of, why_not
from lightning_sparse.anatomy.patterns import as_patterns, matching


class Coverage:
    """Which weights a sparsity callback takes, leaves out, or cannot take yet because they are frozen.

    Building it logs one line, and warns if most of what is trained is left out although the user has named nothing, or if
    patterns that name matrices take biases and norms with them.

    Args:
        trainer: the Trainer, with its optimizers.
        module: its module.
        who: name of the callback.
        targets: the parameters that it makes sparse, by name.
        others: names of those that other callbacks do.
        include: the callback's own; if it is not None, the user has chosen, and nothing that is left out is warned of.
        exclude: likewise.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        who: str,
        targets: Mapping[str, Tensor],
        others: Collection[str],
        include: Sequence[str] | None,
        exclude: Sequence[str] | None,
    ) -> None:
        self._trainer, self._module, self._who, self._exclude = trainer, module, who, list(exclude or ())
        self._targets = list(targets)
        rank_zero_info(_line(module, who, targets))
        self._frozen: dict[str, nn.Parameter] = {}
        if include is not None:
            self._warn_of_vectors(targets)
            return
        chosen = {*targets, *others, *matching("exclude", self._exclude, names_of(module))}
        parameters = {name: p for name, p in module.named_parameters() if name not in chosen}
        parameters = {name: p for name, p in parameters.items() if why_not(module, name, p) is None}
        frozen = set(default_names(module, self._exclude))
        self._frozen = {name: p for name, p in parameters.items() if name in frozen and not p.requires_grad}
        matrices = {name: p for name, p in parameters.items() if sum(size > 1 for size in p.shape) > 1}
        left_out = self._trained(matrices)
        if _count(left_out) > _count(targets):
            self._warn_of_most(left_out, targets)

    def look(self) -> None:
        """Warn if weights of layers that are sparse by default have become trainable since, once for each."""
        unfrozen = {name: p for name, p in self._frozen.items() if p.requires_grad}
        unfrozen = self._trained(unfrozen) if unfrozen else {}
        if unfrozen:
            self._targets += unfrozen
            self._frozen = {name: p for name, p in self._frozen.items() if name not in unfrozen}
            self._warn(
                f"{self._who}: {_count(unfrozen):,} weights are trained now and stay dense: they were frozen when training "
                f"started, and the sparsity is that of the others. To make them sparse with these from the start, write "
                f"include={self._patterns(self._targets)}"
            )

    def _warn_of_most(self, left_out: Mapping[str, nn.Parameter], targets: Mapping[str, Tensor]) -> None:
        kinds = Counter[str]()
        for name, parameter in left_out.items():
            kinds[type(self._module.get_submodule(name.rpartition(".")[0])).__name__] += parameter.numel()
        which = ", ".join(f"{kind} ({count:,})" for kind, count in kinds.most_common())
        left = sum(kinds.values())
        self._warn(
            f"{self._who}: {left:,} of {left + _count(targets):,} trained weights in matrices stay dense, because their "
            f"classes are not sparse by default: {which}. To make them sparse too, write "
            f"include={self._patterns([*targets, *left_out])}; to leave them dense without this warning, "
            f"exclude={self._exclude + as_patterns(list(left_out), list(targets))}"
        )

    def _warn_of_vectors(self, targets: Mapping[str, Tensor]) -> None:
        """Only beside matrices: who names norms alone means them."""
        vectors = {name: weight for name, weight in targets.items() if weight.dim() < 2}
        matrices = [name for name in targets if name not in vectors]
        if vectors and matrices:
            some = ", ".join(list(vectors)[:3]) + (", ..." if len(vectors) > 3 else "")
            self._warn(
                f"{self._who}: include= makes {len(vectors)} biases and weights of norms sparse too ({some}; "
                f"{_count(vectors):,} of {_count(targets):,} targets), whose zeros save nothing and silence whole units. To "
                f"leave them dense, write exclude={self._exclude + as_patterns(list(vectors), matrices)}"
            )

    def _patterns(self, names: Collection[str]) -> list[str]:
        """Patterns that name these parameters and no others."""
        wanted = set(names)
        return as_patterns(list(names), [name for name, own in names_of(self._module).items() if own not in wanted])

    def _trained(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """Those that an optimizer trains."""
        groups = [group for optimizer in self._trainer.optimizers for group in optimizer.param_groups]
        owned = {id(parameter) for group in groups for parameter in group["params"]}
        return {name: p for name, p in parameters.items() if p.requires_grad and id(p) in owned}

    def _warn(self, message: str) -> None:
        if self._trainer.is_global_zero:
            warnings.warn(message, stacklevel=4)


def _line(module: nn.Module, who: str, targets: Mapping[str, Tensor]) -> str:
    everything = [(n, p) for n, p in module.named_parameters() if not isinstance(p, UninitializedParameter)]
    matrices = [name for name, parameter in everything if parameter.dim() > 1]
    frozen = sum(p.numel() for name, p in everything if not p.requires_grad and name not in targets)
    return (
        f"{who}: {_count(targets):,} of {_count(dict(everything)):,} weights are targets, in "
        f"{sum(name in targets for name in matrices)} of {len(matrices)} matrices"
        + (f"; {frozen:,} weights are frozen, and no targets" if frozen else "")
    )


def _count(parameters: Mapping[str, Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters.values())
