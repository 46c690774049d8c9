"""Which parameters of a model are sparsifiable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lightning_sparse.anatomy.factors import factor_names
from lightning_sparse.anatomy.layers import is_conv1d, is_layer
from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.anatomy.patterns import check_patterns, matching, some
from lightning_sparse.errors import SparsityError


class Targets(dict[str, nn.Parameter]):
    """The parameters to make sparse, by name.

    Attributes:
        inputs_first: names of the weights whose shape is (inputs, outputs), as that of transformers' ``Conv1D``; all others
            have their outputs along dimension 0.
    """

    inputs_first: frozenset[str] = frozenset()


def sparsifiable(
    model: nn.Module, include: Sequence[str] | None = None, exclude: Sequence[str] | None = None
) -> Targets:
    """Return the parameters to make sparse, by name, each once even if it is tied.

    Args:
        model: any module.
        include: shell-style patterns on parameter names, such as ``"*.weight_hh*"``; any name of a tied parameter will do.
            None takes the weights of Linear and Conv layers, and of transformers' Conv1D, that are trainable, and of layers
            that tltorch has factorised each factor: no biases, norms or embeddings.
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
    check_module(model)
    everything, names = dict(model.named_parameters()), names_of(model)
    unwanted = check_patterns("exclude", exclude) or ()
    left_out = set(matching("exclude", unwanted, names))
    if include is None:
        found = [name for name in default_names(model, unwanted) if name in everything]
        found = [name for name in found if everything[name].requires_grad]
    else:
        found = matching("include", include, names)
    chosen = Targets({name: everything[name] for name in found if name not in left_out})
    if not chosen:
        raise SparsityError(
            f"{type(model).__name__} has no weight to make sparse: by default the trainable weights of Linear and Conv "
            f"layers are, and it has none left; name others with include=[...] (parameters: {some(everything)})"
        )
    for name, parameter in chosen.items():
        refusal = why_not(model, name, parameter)
        if refusal:
            raise SparsityError(refusal)
    chosen.inputs_first = frozenset(
        name for name in chosen if name.endswith("weight") and is_conv1d(_owner(model, name))
    )
    return chosen


def names_of(model: nn.Module) -> dict[str, str]:
    """Every name of every parameter, and the name under which the model lists it: tied ones have several.

    Example:
        >>> net = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
        >>> net[1].weight = net[0].weight
        >>> names_of(net)
        {'0.weight': '0.weight', '1.weight': '0.weight'}
    """
    listed: dict[int, str] = {}
    return {name: listed.setdefault(id(p), name) for name, p in model.named_parameters(remove_duplicate=False)}


def inputs_first(parameters: Mapping[str, Any]) -> frozenset[str]:
    """Names of the weights whose shape is (inputs, outputs), as far as what :func:`sparsifiable` returned says so."""
    return parameters.inputs_first if isinstance(parameters, Targets) else frozenset()


def outputs_first(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters with their outputs along dimension 0, some of them as a transposed view."""
    turned = inputs_first(parameters)
    return {name: weight.mT if name in turned else weight for name, weight in parameters.items()}


def why_not(model: nn.Module, name: str, parameter: nn.Parameter) -> str | None:
    """Why a parameter cannot be made sparse, and what to write; None if it can."""
    if _is_half_of_a_weight(model, name):
        return _REWRITTEN.format(name=name, layer=name.rpartition(".")[0])
    if isinstance(parameter, UninitializedParameter):
        return f"{name!r} has no shape yet (a lazy layer): run one batch through the model before fit"
    if getattr(_owner(model, name), "sparse", False) is True:
        return (
            f"{name!r} belongs to an embedding with sparse=True, whose gradients hold only the rows of a batch: build it "
            "with sparse=False, or leave it out with exclude"
        )
    if not parameter.is_floating_point():
        return f"{name!r} holds {parameter.dtype}, not floating point: exclude it"
    return None


_REWRITTEN = (
    "{name!r} is already rewritten by something else (weight_norm, a parametrization, torch.nn.utils.prune or "
    "quantisation), so that its zeros would not be the weight's: remove that first, or leave the layer out with "
    "exclude=['{layer}.*']"
)


def _is_half_of_a_weight(model: nn.Module, name: str) -> bool:
    """Whether torch's reparametrisations keep this parameter in place of a weight."""
    path, _, leaf = name.rpartition(".")
    owner = _owner(model, name)
    computed = leaf.endswith("_orig") and hasattr(owner, leaf[:-5]) and leaf[:-5] not in owner._parameters
    if "parametrizations" in path.split(".") or computed:
        return True
    return leaf.endswith(("_g", "_v")) and hasattr(owner, leaf[:-2] + "_g") and hasattr(owner, leaf[:-2] + "_v")


def default_names(model: nn.Module, exclude: Sequence[str]) -> Iterator[str]:
    """Names of the weights of all layers that are sparse by default; one that something else rewrites is refused."""
    for prefix, module in model.named_modules():
        if not is_layer(module):
            continue
        name = f"{prefix}.weight" if prefix else "weight"
        if "weight" not in module._parameters:
            if halves_are_excluded(prefix, module, exclude):
                continue
            raise SparsityError(_REWRITTEN.format(name=name, layer=name.rpartition(".")[0]))
        yield name
    yield from factor_names(model)


def halves_are_excluded(prefix: str, layer: nn.Module, exclude: Sequence[str]) -> bool:
    """Whether ``exclude`` names all parameters that a layer keeps in place of its weight."""
    halves = [leaf for leaf, _ in layer.named_parameters() if "bias" not in leaf]
    inside = [f"{prefix}.{leaf}" if prefix else leaf for leaf in halves]
    return all(any(fnmatchcase(leaf, pattern) for pattern in exclude) for leaf in inside)


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])
