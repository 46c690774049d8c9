"""Which parameters of a model are sparsifiable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from lightning_sparse.errors import SparsityError

DEFAULT_TYPES: tuple[type[nn.Module], ...] = (nn.Linear, _ConvNd)


def sparsifiable(
    model: nn.Module, include: Sequence[str] | None = None, exclude: Sequence[str] | None = None
) -> dict[str, nn.Parameter]:
    """Return the parameters to make sparse, by name, each once even if it is tied.

    Args:
        model: any module.
        include: shell-style patterns on parameter names, such as ``"*.weight_hh*"``. None takes the weights of Linear
            and Conv layers that are trainable: no biases, norms or embeddings.
        exclude: patterns of names to leave out, applied after ``include``.

    Raises:
        SparsityError: if a pattern matches nothing, if nothing is left, or if a parameter cannot be made sparse: something
            else rewrites it (weight_norm, a parametrization, torch's prune), or it has no shape yet, sparse gradients, or
            another type than floating point.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10))
        >>> list(sparsifiable(net))
        ['0.weight', '3.weight']
        >>> list(sparsifiable(net, exclude=["3.*"]))
        ['0.weight']
    """
    everything = dict(model.named_parameters())
    left_out = set(_matching("exclude", exclude or (), everything))
    if include is None:
        names = [name for name in _default_names(model, exclude or ()) if name in everything]
        names = [name for name in names if everything[name].requires_grad]
    else:
        names = _matching("include", include, everything)
    chosen = {name: everything[name] for name in names if name not in left_out}
    if not chosen:
        raise SparsityError(
            f"{type(model).__name__} has no weight to make sparse: by default the trainable weights of Linear and Conv "
            f"layers are, and it has none left; name others with include=[...] (parameters: {_some(everything)})"
        )
    for name, parameter in chosen.items():
        if _is_half_of_a_weight(model, name):
            raise SparsityError(_REWRITTEN.format(name=name, layer=name.rpartition(".")[0]))
        if isinstance(parameter, UninitializedParameter):
            raise SparsityError(f"{name!r} has no shape yet (a lazy layer): run one batch through the model before fit")
        if getattr(model.get_submodule(name.rpartition(".")[0]), "sparse", False) is True:
            raise SparsityError(
                f"{name!r} belongs to an embedding with sparse=True, whose gradients hold only the rows of a batch: build it "
                "with sparse=False, or leave it out with exclude"
            )
        if not parameter.is_floating_point():
            raise SparsityError(f"{name!r} holds {parameter.dtype}, not floating point: exclude it")
    return chosen


_REWRITTEN = (
    "{name!r} is already rewritten by something else (weight_norm, a parametrization, torch.nn.utils.prune or "
    "quantisation), so that its zeros would not be the weight's: remove that first, or leave the layer out with "
    "exclude=['{layer}.*']"
)


def _is_half_of_a_weight(model: nn.Module, name: str) -> bool:
    """Whether torch's reparametrisations keep this parameter in place of a weight."""
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    computed = leaf.endswith("_orig") and hasattr(owner, leaf[:-5]) and leaf[:-5] not in owner._parameters
    if "parametrizations" in path.split(".") or computed:
        return True
    return leaf.endswith(("_g", "_v")) and hasattr(owner, leaf[:-2] + "_g") and hasattr(owner, leaf[:-2] + "_v")


def _default_names(model: nn.Module, exclude: Sequence[str]) -> Iterator[str]:
    for prefix, module in model.named_modules():
        if not isinstance(module, DEFAULT_TYPES):
            continue
        name = f"{prefix}.weight" if prefix else "weight"
        if "weight" not in module._parameters:
            halves = [leaf for leaf, _ in module.named_parameters() if "bias" not in leaf]
            inside = [f"{prefix}.{leaf}" if prefix else leaf for leaf in halves]
            if all(any(fnmatchcase(leaf, pattern) for pattern in exclude) for leaf in inside):
                continue
            raise SparsityError(_REWRITTEN.format(name=name, layer=name.rpartition(".")[0]))
        yield name


def _matching(argument: str, patterns: Sequence[str], names: dict[str, nn.Parameter]) -> list[str]:
    if isinstance(patterns, str):
        raise SparsityError(f"{argument}={patterns!r} is one string: write a list, {argument}=[{patterns!r}]")
    matched: set[str] = set()
    for pattern in patterns:
        hits = [name for name in names if fnmatchcase(name, pattern)]
        if not hits:
            close = get_close_matches(pattern, list(names), n=1, cutoff=0.3)
            guess = f"did you mean {close[0]!r}? " if close else ""
            raise SparsityError(
                f"{argument} pattern {pattern!r} matches no parameter: {guess}(parameters: {_some(names)})"
            )
        matched.update(hits)
    return [name for name in names if name in matched]


def _some(names: dict[str, nn.Parameter], most: int = 12) -> str:
    shown = ", ".join(list(names)[:most])
    return shown + (f", and {len(names) - most} more" if len(names) > most else "")
