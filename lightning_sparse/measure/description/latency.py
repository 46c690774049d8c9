"""How long a network takes, beside a dense one in the same run; how many images a second, and how much memory."""

from __future__ import annotations

import copy
import re
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.errors import SparsityError, as_list, check_count
from lightning_sparse.measure.description.machine import machine_in_words
from lightning_sparse.measure.description.peak_memory import peak_of
from lightning_sparse.measure.description.race import check_seconds, race
from lightning_sparse.results.records import Measured, Record

DENSE, NOISE = "dense", "noise"  # names that no model may have


def measure_latency(
    model: nn.Module | Mapping[str, nn.Module],
    example: Tensor | Sequence[Tensor],
    batch_sizes: Sequence[int] = (1, 128),
    baseline: nn.Module | None = None,
    *,
    seconds: float = 2.0,
) -> Measured:
    """Time one or more networks against a dense one, in turns, and measure the memory of each.

    In every round each network is called for a third of a millisecond, or once if that takes longer, in shuffled order; a
    ratio is the median, over the rounds, of the ratios within a round, so that what slows the whole machine down cancels.
    A second copy of the dense network takes part like the others: its ratio to the first would be 1 on a quiet machine, and
    what it is instead is the noise of the run. A ratio that is no further from 1 than that says nothing.

    The clock is that on the wall, as whoever waits for an answer sees it. On CUDA the device is waited for before each look
    at the clock. Networks are in eval mode and without gradients. (``torch.utils.benchmark.Timer`` times one statement at
    a time: it cannot take turns, and warms up again in each.)

    Args:
        model: one module, which the rows call ``model``, or several by name, such as ``{"shrunk": small}``; all on one
            device, and left as they were.
        example: what a module is called with: a tensor, or a tuple of them; (n, ...), of which the n are repeated to make
            each batch.
        batch_sizes: images in a batch, each from 1 to 65536.
        baseline: the dense network. None is a copy of ``model``, for a single module as it was trained, whose zeros are
            weights to a dense kernel; modules by name, and tensors in a sparse layout, need a baseline.
        seconds: how long the timing lasts in all, from 0 to 3600, after the warm-up. Five rounds are made at least, however
            long they take, and 2000 at most.

    Returns:
        Records, each for every batch size (its ``condition`` is ``"batch=128"``), with ``n`` the images of a batch:
        ``cost_latency_<name>``: seconds a batch, as a ratio to dense, with ``low`` and ``high`` its quartiles over rounds
        (``detail`` has milliseconds, threads, and what the machine can do); ``cost_latency_noise``: the same of the second
        dense copy; ``cost_throughput_<name>`` and ``cost_throughput_dense``: images a second; ``cost_memory_<name>``: peak
        memory of a forward pass as a ratio to dense
        (:func:`~lightning_sparse.measure.description.peak_memory.peak_memory`), not of a module without tensors of its own,
        whose memory torch does not see. No arrays.

    Raises:
        SparsityError: if an argument is not what it should be, or a module cannot be called with the example.

    Example:
        >>> wide = nn.Sequential(nn.Linear(512, 2048), nn.ReLU(), nn.Linear(2048, 512))
        >>> narrow = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 512))
        >>> found = measure_latency({"narrow": narrow}, torch.rand(1, 512), (64,), baseline=wide, seconds=0.2)
        >>> ratio = {row.metric: row.value for row in found.records}
        >>> ratio["cost_latency_narrow"] < 0.5, ratio["cost_memory_narrow"] < 0.1
        (True, True)
    """
    models = _checked_models(model, baseline)
    inputs = _checked_example(example)
    sizes = _checked_sizes(batch_sizes)
    check_seconds(seconds)
    device = _device(models, baseline)
    rows = []
    with ExitStack() as stack:
        for module in (*models.values(), *([] if baseline is None else [baseline])):
            stack.enter_context(untouched(module))
        stack.enter_context(torch.no_grad())
        dense = copy_of(next(iter(models.values()))) if baseline is None else baseline
        everyone = {DENSE: dense, **models, NOISE: copy_of(dense)}
        for size in sizes:
            batch = tuple(_repeated(tensor, size).to(device) for tensor in inputs)
            rows += _of_batch(everyone, batch, device, seconds / len(sizes))
    return Measured(rows)


def _of_batch(
    models: Mapping[str, nn.Module], batch: tuple[Tensor, ...], device: torch.device, seconds: float
) -> list[Record]:
    machine = machine_in_words(device)
    peaks = {name: _peak(name, module, batch, device) for name, module in models.items()}
    calls = {name: partial(module, *batch) for name, module in models.items()}
    times = race(calls, seconds, device)
    median = {name: statistics.median(taken) for name, taken in times.items()}
    size, rounds = len(batch[0]), len(times[DENSE])
    condition = f"batch={size}"
    how = f"{rounds} rounds in turns, low and high are quartiles over them; eval mode, no gradients; {machine}"
    rows = []
    for name in models.keys() - {DENSE}:
        ratios = [taken / dense for taken, dense in zip(times[name], times[DENSE], strict=True)]
        low, value, high = statistics.quantiles(ratios, n=4, method="inclusive")
        detail = f"{_milliseconds(median[name])}, dense {_milliseconds(median[DENSE])}; median of ratios within {how}"
        rows.append(Record(f"cost_latency_{name}", value, size, low, high, condition=condition, detail=detail))
        if name != NOISE and peaks[name]:
            detail = f"{peaks[name]} bytes, dense {peaks[DENSE]}; forward pass in eval mode, no gradients"
            rows.append(
                Record(f"cost_memory_{name}", peaks[name] / peaks[DENSE], size, condition=condition, detail=detail)
            )
    for name in models.keys() - {NOISE}:
        detail = f"images a second: {size} in {_milliseconds(median[name])}, the median of {how}"
        rows.append(Record(f"cost_throughput_{name}", size / median[name], size, condition=condition, detail=detail))
    return sorted(rows, key=lambda row: row.metric)


def _peak(name: str, module: nn.Module, batch: tuple[Tensor, ...], device: torch.device) -> int:
    """Peak bytes of a forward pass; 0 for a module without tensors, which runs where torch does not see it."""
    own = _tensors_of(module)
    try:
        with torch.compiler.set_stance("force_eager"):
            peak = peak_of(lambda: module(*batch), [*own, *batch], device)
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in batch)
        called = "baseline" if name in (DENSE, NOISE) else f"model {name!r}"
        raise SparsityError(
            f"{called} cannot be called with a batch of shape {shapes} ({str(error).splitlines()[0][:200]}): give as "
            "example what it is called with, such as example=next(iter(loader))[0]"
        ) from error
    return peak if own else 0


def copy_of(module: nn.Module) -> nn.Module:
    """A copy of a module, or the module itself if it cannot be copied: a tensor with a history, a session of a library."""
    try:
        return copy.deepcopy(module)
    except Exception:
        return module


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.4g} ms"


def _repeated(tensor: Tensor, size: int) -> Tensor:
    return tensor[torch.arange(size, device=tensor.device) % len(tensor)]


def _checked_models(model: object, baseline: object) -> dict[str, nn.Module]:
    if baseline is not None:
        check_module(baseline, "baseline")
    if not isinstance(model, Mapping):
        check_module(model)
        assert isinstance(model, nn.Module)
        if baseline is None and any(tensor.layout != torch.strided for tensor in _tensors_of(model)):
            raise SparsityError(
                "model holds sparse tensors, and is compared with a dense one: write baseline=dense_model"
            )
        return {"model": model}
    if not model:
        raise SparsityError("model={} holds no module: write model={'shrunk': module}")
    for name, module in model.items():
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in (DENSE, NOISE):
            raise SparsityError(
                f"model={{{name!r}: ...}} is not a name of small letters, digits and _, other than dense and noise: write "
                "model={'shrunk': module}"
            )
        check_module(module, f"model[{name!r}]")
    if baseline is None:
        raise SparsityError("baseline=None is no dense network to compare several with: write baseline=dense_model")
    return dict(model)


def _checked_example(example: object) -> list[Tensor]:
    listed = [example] if isinstance(example, Tensor) else as_list(example) or []
    right = all(isinstance(tensor, Tensor) and tensor.dim() > 0 and len(tensor) > 0 for tensor in listed)
    if not listed or not right or len({len(tensor) for tensor in listed}) > 1:
        raise SparsityError(
            "example is not a batch: give a tensor (n, ...) with n >= 1, such as next(iter(loader))[0], or a tuple of them "
            "with the same n"
        )
    return [tensor.detach() for tensor in listed]


def _checked_sizes(batch_sizes: object) -> list[int]:
    listed = as_list(batch_sizes)
    if not listed:
        example = batch_sizes if isinstance(batch_sizes, int) and batch_sizes > 0 else 1
        raise SparsityError(f"batch_sizes={batch_sizes!r} is not a list of sizes: write batch_sizes=[{int(example)}]")
    return list(dict.fromkeys(check_count("batch_sizes", size, 1, most=2**16) for size in listed))


def _device(models: Mapping[str, nn.Module], baseline: nn.Module | None) -> torch.device:
    """Where all of them are, but for those without tensors, which run where torch does not see it."""
    everyone = models if baseline is None else {"baseline": baseline, **models}
    devices = {name: device_of(module) for name, module in everyone.items() if _tensors_of(module)}
    first = next(iter(devices), None)
    for name, device in devices.items():
        if device != devices[first or name]:
            raise SparsityError(
                f"model {name!r} is on {device} and {first!r} on {devices[first or name]}: move both to one device, such as "
                f"model.to('{device}')"
            )
    return devices[first] if first else torch.device("cpu")


def _tensors_of(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
