"""The most memory that one pass through a model holds at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from lightning_sparse.anatomy.isolation import as_it_was, device_of, untouched
from lightning_sparse.anatomy.tensor_parts import tensor_parts
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.classifier import batches


def peak_memory(model: nn.Module, images: Tensor, *, training: bool = False) -> int:
    """Find the highest number of bytes alive at once while a batch goes through a model.

    It counts parameters, buffers, the batch itself and every tensor that the pass makes while it is alive, with views of one
    storage once, and of a sparse tensor its values and their places. In training these include gradients, but no optimizer
    (SGD with momentum holds 4 bytes more a parameter, Adam 8).

    On a CPU the results of each operation are watched as they come and go, so the number does not depend on the kernels, and
    does not include what an operation needs while it runs. Linear layers need nothing more; a CPU's convolutions copy their
    input and weights into layouts of their own (64 images: LeNet-5 70 % more in inference, ResNet-20 29 %; training 19 % and
    1 %). On CUDA it is what torch's allocator says, workspaces included, in its units of 512 bytes; that resets
    ``torch.cuda.max_memory_allocated``. Dense kernels hold dead weights like living ones: masks do not change the number,
    fewer channels would.

    Args:
        model: called as ``model(images)``; it is left as it was.
        images: one batch, as the model takes it, on any device.
        training: False for one forward pass in eval mode without gradients; True for a forward and a backward pass in
            training mode, from the cross-entropy of the output with class 0.

    Returns:
        Bytes.

    Raises:
        SparsityError: if ``images`` is not a batch.

    Example:
        >>> net = nn.Sequential(nn.Linear(10, 5, bias=False), nn.ReLU(), nn.Linear(5, 2, bias=False))
        >>> peak_memory(net, torch.rand(8, 10))  # 4 * (50 + 10) weights, 4 * 80 inputs, and 4 * 40 twice around the ReLU
        880
    """
    if not isinstance(images, Tensor) or images.dim() == 0 or len(images) == 0:
        raise SparsityError("images is not a batch: give a tensor (n, ...) with n >= 1, such as next(iter(loader))[0]")
    device = device_of(model)
    # Eagerly, because the watcher does not see inside compiled modules.
    with as_it_was(model) if training else untouched(model), torch.compiler.set_stance("force_eager"):
        model.train(training)
        (batch,) = next(batches(len(images), device, images))
        held = [*model.parameters(), *model.buffers(), batch]

        def work() -> None:
            with torch.set_grad_enabled(training):
                if training:
                    # Only the loss has a name, so that the logits are freed as in a training step that returns the loss.
                    loss = F.cross_entropy(model(batch), torch.zeros(len(batch), dtype=torch.long, device=device))
                    loss.backward()  # type: ignore[no-untyped-call]
                else:
                    model(batch)

        return peak_of(work, held, device)


def peak_of(work: Callable[[], object], held: Iterable[Tensor], device: torch.device) -> int:
    """The highest number of bytes alive on a device during ``work``, those of ``held`` included throughout.

    Example:
        >>> x = torch.zeros(10)
        >>> peak_of(lambda: x.add(1).sum(), [x], x.device)
        84
    """
    return _peak_on_cuda(work, held, device) if device.type == "cuda" else _peak_watched(work, held)


def _peak_watched(work: Callable[[], object], held: Iterable[Tensor]) -> int:
    watch = _Watch()
    for tensor in held:
        watch.see(tensor)
    with watch:
        work()
    return watch.peak


def _peak_on_cuda(work: Callable[[], object], held: Iterable[Tensor], device: torch.device) -> int:
    work()  # once before, because the libraries keep their workspaces from the first call on
    parts = [part for tensor in held for part in tensor_parts(tensor)]
    storages = {part.untyped_storage()._cdata: part.untyped_storage().nbytes() for part in parts}
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) - before + sum(storages.values())


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follow storages from the operation that makes them to the moment the last tensor on them dies.

    Torch's own trackers of this kind are private (``torch.distributed._tools``), and its public profiler cannot run inside
    another, such as a Trainer's. The base class is the one that ``torch.utils.flop_counter`` uses.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def see(self, tensor: Tensor) -> None:
        for part in tensor_parts(tensor):
            self._see_strided(part)

    def _see_strided(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def gone(_: Any) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in tree_iter(results):
            if isinstance(result, Tensor):
                self.see(result)
        return results
