"""Give each linear layer of a network the form that is fastest on this machine: sparse, shrunk or dense."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.copies import copied
from lightning_sparse.anatomy.isolation import device_of, fork_random_states
from lightning_sparse.anatomy.layer_calls import is_compiled
from lightning_sparse.anatomy.layers import is_conv1d
from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.export.comparing import Run
from lightning_sparse.export.example import as_arguments, of_size, works
from lightning_sparse.export.gathered_linear import GatheredLinear, living_in
from lightning_sparse.export.sparse_linear import DTYPES, CSRLinear
from lightning_sparse.measure.description.race import check_seconds, race, speedup
from lightning_sparse.results.text_table import text_table

SLOWEST = 1.0  # times as fast as dense: below that, layers go back to dense
_GAIN = 1.03  # what a layer must gain on its own: less is within the noise
_DENSEST = (
    0.5  # above this density no sparse kernel known is faster: at 0.5 MKL's takes twice the time of the dense one
)


@dataclass(frozen=True)
class SparsifiedLayer:
    """What became of one linear layer.

    Attributes:
        name: of the layer in the network.
        shape: (outputs, inputs).
        density: share of its weights that are not zero.
        form: ``"dense"``, ``"csr"``, ``"shrunk"`` or ``"2:4"``.
        dense_ms: milliseconds of the dense layer on the batch; NaN if nothing else was tried.
        sparse_ms: those of the fastest other form, whether it was chosen or not; NaN likewise.
        why: why it stays dense; empty if it does not.
    """

    name: str
    shape: tuple[int, int]
    density: float
    form: str = "dense"
    dense_ms: float = math.nan
    sparse_ms: float = math.nan
    why: str = ""


@dataclass(frozen=True)
class Sparsified:
    """A network made fast by :func:`sparsify`, and what was measured on the way.

    Attributes:
        model: the network, in eval mode; it shares nothing with the one given.
        layers: what became of each linear layer.
        batch_size: of the batch that was timed.
        threads: of torch on the CPU, while it was timed.
        dense_ms: milliseconds of the dense network on the batch.
        speedup: how many times as fast as the dense network it is; 1 if every layer stays dense.
        noise: the same of a second copy of the dense network, 1 on a quiet machine.
    """

    model: nn.Module
    layers: tuple[SparsifiedLayer, ...]
    batch_size: int
    threads: int
    dense_ms: float
    speedup: float
    noise: float

    def table(self) -> str:
        """A line for each linear layer, and one for the whole network, as text."""
        cells = [("layer", "shape", "density %", "dense ms", "sparse ms", "form", "")]
        for layer in self.layers:
            shape, density = " x ".join(map(str, layer.shape)), f"{100 * layer.density:.2f}"
            times = (_written(layer.dense_ms), _written(layer.sparse_ms))
            cells.append((layer.name or "(the model)", shape, density, *times, layer.form, layer.why))
        said = (
            f"batch {self.batch_size}, {self.threads} {'thread' if self.threads == 1 else 'threads'}: {self.speedup:.2f} "
            f"times as fast as dense ({_written(self.dense_ms)} ms); a second dense copy: {self.noise:.2f} times"
        )
        return f"{text_table(cells, '<<>>><<')}\n{said}"


def sparsify(
    model: nn.Module, example: Tensor | tuple[Tensor, ...], *, batch_size: int | None = None, seconds: float = 2.0
) -> Sparsified:
    """Copy a network with each linear layer in the form that is fastest here: sparse, shrunk or dense, its outputs equal.

    Every ``nn.Linear`` (and transformers' ``Conv1D``) is timed beside its other forms, on the input that it gets in the
    network: at a density of 0.5 at most in compressed sparse rows (:class:`CSRLinear`); with dead inputs or outputs, whose
    column or row of the weight is zero, shrunk to the living ones (:class:`GatheredLinear`); on a CUDA device, with two zeros
    in every group of four inputs, as torch's semi-structured sparse tensor. The network is then timed as a whole beside two
    copies of the dense one, with the layers that are faster alone and with all of them: in a chain of sparse layers none has
    to turn its input. As long as it is slower than dense, the half of the sparse layers that gains least goes back.

    On a CPU, compressed sparse rows begin to pay at a sparsity of about 0.8 to 0.9 for 128 examples, later for narrow layers;
    for weights in 16 bits it has no such kernel. A shrunk layer still gives its full width: :func:`shrink`, which narrows
    what follows as well, comes first where it can. Convolutions, recurrent layers and whatever reads a weight without calling
    its layer stay as they are. The choice holds for this machine, this batch size and this number of threads.

    Args:
        model: any module; it is left as it was. Its zeros are taken as they are: a Lightning checkpoint of this library has
            them in the weights.
        example: a batch (n, ...) as the model takes it, or a tuple of such tensors for several arguments, n >= 1.
        batch_size: how many examples at a time to make it fast for: the example's are repeated, or the first taken. None
            takes the example as it is.
        seconds: how long to time, all in all, above 0. A network that takes longer for some passes takes as long as these.

    Returns:
        The network and what was timed, see :class:`Sparsified`. The sparse layers cannot be trained.

    Raises:
        SparsityError: if an argument is something else, or the model cannot be copied, or not be called with the example.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
        >>> with torch.no_grad():
        ...     _ = net[0].weight.mul_(torch.rand(512, 512) < 0.01)
        >>> found = sparsify(net, torch.rand(8, 512), batch_size=64, seconds=0.1)
        >>> [(layer.name, layer.form) for layer in found.layers]
        [('0', 'csr'), ('2', 'dense')]
        >>> torch.allclose(found.model(torch.ones(2, 512)), net(torch.ones(2, 512)), rtol=1e-4, atol=1e-5)
        True
    """
    check_module(model)
    arguments = as_arguments(example)
    size = len(arguments[0]) if batch_size is None else check_count("batch_size", batch_size, write=128)
    check_seconds(seconds)
    if is_compiled(model):
        raise SparsityError("model is compiled, and its layers cannot be replaced: give the module that was compiled")
    device = device_of(model)
    batch, few = (of_size(arguments, n, device) for n in (size, 3))
    with torch.inference_mode(False), torch.no_grad(), fork_random_states(0):
        dense, again = copied(model).eval(), copied(model).eval()
        plain = Run(dense, few if works(dense, few) else batch)
        sparse, layers, forms = _made_sparse(copied(model).eval(), plain)
        timed = _timed(sparse, dense, forms, batch, 0.5 * seconds / max(1, len(forms)))
        faster = set()
        for name, made in forms.items():
            if name not in timed:
                layers[name] = replace(layers[name], why="not called")
                continue
            gains = {form: speedup(timed[name], form, "dense") for form in made}
            best = max(gains, key=gains.__getitem__)
            sparse = _with_layers(sparse, {name: made[best]})
            first, second = (1e3 * statistics.median(timed[name][form]) for form in ("dense", best))
            layers[name] = replace(layers[name], form=best, dense_ms=first, sparse_ms=second)
            if gains[best] >= _GAIN:
                faster.add(name)
        return _fast_as_a_whole(model, sparse, layers, faster, {"dense": dense, "again": again}, batch, seconds / 2)


def _fast_as_a_whole(
    model: nn.Module,
    sparse: nn.Module,
    layers: dict[str, SparsifiedLayer],
    faster: set[str],
    copies: Mapping[str, nn.Module],
    batch: tuple[Tensor, ...],
    seconds: float,
) -> Sparsified:
    """Time the network with the layers that are faster alone, and with all; put some back until it is fast and equal."""
    reference = Run(copies["dense"], batch)
    why = dict.fromkeys(layers, "dense is as fast")
    choices = {"faster": faster, "all": {name for name, layer in layers.items() if layer.form != "dense"}}
    while True:
        made = {label: _put_in(copied(model).eval(), sparse, names) for label, names in choices.items()}
        equal = [label for label, net in made.items() if reference.gives_the_same(net)]
        calls = {name: partial(net, *batch) for name, net in {**copies, **made}.items()}
        times = race(calls, seconds, batch[0].device, cpu_time=True)
        gains = {label: speedup(times, label, "dense") * (1.0 if label == "faster" else 1 / _GAIN) for label in equal}
        best = max(gains, key=gains.__getitem__, default=None)
        if best is not None and (gains[best] >= SLOWEST or not choices[best]):
            break
        # Only the layers that are faster alone are left to try, and fewer of them each time.
        least = sorted(faster, key=lambda name: layers[name].dense_ms - layers[name].sparse_ms)
        dropped = least[: (len(least) + 1) // 2] if "faster" in equal else least
        why |= dict.fromkeys(
            dropped, "the whole is slower with it" if "faster" in equal else "the outputs differ with it"
        )
        faster = faster.difference(dropped)
        choices = {"faster": faster}
    kept = choices[best]
    table = (
        layer if layer.form == "dense" or name in kept else replace(layer, form="dense", why=why[name])
        for name, layer in layers.items()
    )
    return Sparsified(
        _put_in(copied(model).eval(), sparse, kept).eval(),
        tuple(table),
        len(batch[0]),
        torch.get_num_threads(),
        1e3 * statistics.median(times["dense"]),
        speedup(times, best, "dense") if kept else 1.0,
        speedup(times, "again", "dense"),
    )


def _put_in(model: nn.Module, sparse: nn.Module, names: Collection[str]) -> nn.Module:
    """Put the sparse layers of these names into a dense model."""
    return _with_layers(model, {name: sparse.get_submodule(name) for name in names})


def _made_sparse(
    model: nn.Module, plain: Run
) -> tuple[nn.Module, dict[str, SparsifiedLayer], dict[str, dict[str, nn.Module]]]:
    """Make each layer's forms that leave the outputs equal and laid out as they are; put the first in, or say why not."""
    found: dict[str, SparsifiedLayer] = {}
    forms: dict[str, dict[str, nn.Module]] = {}
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) or is_conv1d(m)}
    for name, module in linear.items():
        weight = _matrix(module)
        if weight is None:
            found[name] = SparsifiedLayer(name, (0, 0), math.nan, why="its weight is no plain matrix")
            continue
        density = torch.count_nonzero(weight).item() / weight.numel()
        makers = _forms(module, weight, density)
        made: dict[str, nn.Module] = {}
        for form, make in () if isinstance(makers, str) else makers:
            if form in made:
                continue
            with suppress(Exception):  # whatever torch, or code that reads the layer's weight, has against it
                layer = make()
                model = _with_layers(model, {name: layer})
                if plain.gives_the_same(model):
                    made[form] = layer
        model = _with_layers(model, {name: next(iter(made.values()), module)})
        if made:
            forms[name] = made
        why = makers if isinstance(makers, str) else "the network reads its weight, or gives other outputs"
        found[name] = SparsifiedLayer(name, (weight.shape[0], weight.shape[1]), density, why="" if made else why)
    return model, found, forms


def _matrix(module: Any) -> Tensor | None:
    weight = module._parameters.get("weight")
    if not isinstance(weight, Tensor) or weight.layout != torch.strided or weight.dim() != 2 or 0 in weight.shape:
        return None
    return weight.t() if is_conv1d(module) else weight


def _forms(module: Any, weight: Tensor, density: float) -> str | list[tuple[str, Callable[[], nn.Module]]]:
    """The forms to try, or why there is none; of two with one name the second is for where the first does not do."""
    if type(module).__mro__[1] is not nn.Module:
        return "a class of its own"
    if module._forward_pre_hooks or module._forward_hooks:
        return "it has hooks"
    forms: list[tuple[str, Callable[[], nn.Module]]] = []
    if density <= _DENSEST and weight.is_cuda and isinstance(module, nn.Linear) and _is_2_4(weight):
        forms.append(("2:4", lambda: _semi_structured(module)))
    elif density <= _DENSEST and weight.dtype in DTYPES:
        forms.append(("csr", lambda: CSRLinear(weight, module.bias)))
        forms.append(("csr", lambda: CSRLinear(weight, module.bias, contiguous=True)))
    outputs, inputs = living_in(weight)
    if _GAIN * len(outputs) * len(inputs) <= weight.numel():  # with fewer dead ones, no gain could be told from noise
        forms.append(("shrunk", lambda: GatheredLinear(weight, module.bias)))
    if forms:
        return forms
    return "too dense" if density > _DENSEST else f"no sparse kernel for {str(weight.dtype).removeprefix('torch.')}"


def _is_2_4(weight: Tensor) -> bool:
    """Whether at least two of every four weights along the inputs are zero."""
    return weight.shape[1] % 4 == 0 and bool(((weight.view(len(weight), -1, 4) != 0).sum(2) <= 2).all())


def _semi_structured(module: nn.Linear) -> nn.Module:
    layer = copy.deepcopy(module)
    layer.weight = nn.Parameter(torch.sparse.to_sparse_semi_structured(layer.weight.detach()), requires_grad=False)
    return layer


def _timed(
    sparse: nn.Module,
    dense: nn.Module,
    forms: Mapping[str, Mapping[str, nn.Module]],
    batch: tuple[Tensor, ...],
    seconds: float,
) -> dict[str, dict[str, list[float]]]:
    """Time all forms of each layer, when the network calls it first, on what it is called with."""
    found: dict[str, dict[str, list[float]]] = {}

    def timer(name: str) -> Callable[..., None]:
        def look(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            if name not in found:
                (x,) = (*given, *named.values())
                calls = {form: partial(layer.forward, x) for form, layer in forms[name].items()}
                # with the input as a dense layer before would give it
                calls["dense"] = partial(dense.get_submodule(name).forward, x.contiguous())
                found[name] = race(calls, seconds, x.device, cpu_time=True)

        return look

    handles = [sparse.get_submodule(name).register_forward_pre_hook(timer(name), with_kwargs=True) for name in forms]
    try:
        sparse(*batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _with_layers(model: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """Put layers into a model, under each name that the layers there have."""
    for name, layer in layers.items():
        if name == "":
            return layer
        held = model.get_submodule(name)
        for other in [path for path, module in model.named_modules(remove_duplicate=False) if module is held]:
            parent, _, last = other.rpartition(".")
            setattr(model.get_submodule(parent), last, layer)
    return model


def _written(ms: float) -> str:
    return "-" if math.isnan(ms) else f"{ms:.3g}"
