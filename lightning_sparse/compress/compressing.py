"""The one verb: steps, one after another, to a network that is decoded from its bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from lightning_sparse.anatomy.copies import copied
from lightning_sparse.anatomy.isolation import fork_random_states
from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.compress.bits import check_reachable, found_at
from lightning_sparse.compress.draft import Draft
from lightning_sparse.compress.network_code import Account, decode_network, encode_draft
from lightning_sparse.compress.state import check_state, numbers_of
from lightning_sparse.compress.steps.code import Code
from lightning_sparse.compress.steps.deep_compression import DeepCompression
from lightning_sparse.compress.steps.narrow import Narrow
from lightning_sparse.compress.steps.order import check_steps
from lightning_sparse.compress.steps.prune import Prune
from lightning_sparse.compress.steps.quantise import Quantise
from lightning_sparse.compress.steps.share import Share
from lightning_sparse.compress.steps.step import Step
from lightning_sparse.compress.training import Epochs, Training
from lightning_sparse.errors import SparsityError, check_count, check_flag, check_seed
from lightning_sparse.results.files import write_whole


@dataclass(frozen=True)
class Compressed:
    """A network in few bits.

    Attributes:
        model: the network, decoded from ``content``: an ordinary module, and the one to be scored.
        content: the string of bytes, from which :func:`decompress` makes it again, given the dense architecture.
        account: what each part takes, see :class:`Account`.
        steps: that were taken, each with its knob.
        left_alone: layers that a step passed by, and why.
    """

    model: nn.Module
    content: bytes
    account: Account
    steps: tuple[Step, ...]
    left_alone: Mapping[str, str]

    @property
    def bits(self) -> int:
        """Of the content."""
        return 8 * len(self.content)

    @property
    def share(self) -> float:
        """Of the dense network in float32."""
        return self.account.share

    def table(self) -> str:
        """Bytes by weight and part, as text, and the layers that were left alone."""
        passed = "".join(f"\nleft alone: {name}: {why}" for name, why in self.left_alone.items())
        return f"{' -> '.join(map(str, self.steps))}\n{self.account.table()}{passed}"

    def save(self, path: str | Path) -> None:
        """Write the content into a file, whole or not at all."""
        if not isinstance(path, str | Path) or not str(path).strip() or Path(path).is_dir():
            raise SparsityError(f"path={path!r} is not the path of a file: write one such as 'network.lsc'")
        try:
            write_whole(Path(path), self.content)
        except (OSError, ValueError) as error:
            raise SparsityError(f"path={str(path)!r} cannot be written to ({error}): give another one") from error


def compress(
    model: nn.Module,
    steps: Sequence[Step | DeepCompression],
    *,
    data: Any = None,
    fine_tune: int = 0,
    bits: float | None = None,
    batch_size: int = 64,
    optimizer: Callable[[Any], Optimizer] | None = None,
    loss: Callable[[Any, Any], Tensor] = F.cross_entropy,
    seed: int = 0,
    progress: bool = False,
) -> Compressed:
    """Say a network in fewer bits, by steps that compose, with an exact account of the bits.

    A size is the length of a string from which a decoder that knows the dense architecture rebuilds the network; the network
    returned is the one so rebuilt. Steps come in this order, those in one row exclude each other:

    1. :class:`Narrow`: down-sizing;
    2. :class:`Factorise`: operator factorisation;
    3. :class:`Prune`: sparsification;
    4. :class:`Quantise`, :class:`Share`: value quantisation, parameter sharing;
    5. :class:`Code`: value compression.

    :class:`DeepCompression` stands for three of them.

    Args:
        model: any module with Linear or Conv layers; it is left as it was. Zeros of its weights are not taken as dead: write
            ``Prune(0.9)`` for a network that was pruned to .9, which finds them.
        steps: at least one.
        data: training batches (inputs, truth), as a loader or two tensors; needed for ``fine_tune``. Inputs in a mapping are
            given to the model by name.
        fine_tune: epochs of training in all, shared equally by the steps but ``Code``, so that lists of steps can be
            compared; ``Code`` alone trains the network as it is. 0 trains nothing.
        bits: size in shares of the dense network in float32, in (0, 1): the one step whose argument is left out gets the
            largest that fits into it. Fine-tuning comes after, and may move the size by some percent.
        batch_size: of tensors as ``data``.
        optimizer: makes one of a list of parameters, ``lambda weights: torch.optim.SGD(weights, lr=0.1)``; None is Adam at
            1e-3. The learning rate falls to zero along a cosine in each step.
        loss: ``loss(outputs, truth)``.
        seed: of the order of the images, and of the random states inside.
        progress: show bars.

    Returns:
        The network and its account, see :class:`Compressed`.

    Raises:
        SparsityError: before any work if a step does not go with the others, an argument is out of range, ``bits`` cannot be
            reached (it names the smallest that can), or a library is missing.

    Example:
        >>> from lightning_sparse.compress import Code, Prune, Quantise
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
        >>> small = compress(net, [Prune(0.9), Quantise(bits=4), Code()])
        >>> small.bits == 8 * len(small.content), round(small.share, 2)
        (True, 0.02)
        >>> again = decompress(small.content, net)
        >>> bool((again(torch.ones(2, 784)) == small.model(torch.ones(2, 784))).all())
        True
    """
    check_module(model)
    asked = check_steps(steps, bits)
    check_count("fine_tune", fine_tune, 0, write=2)
    check_count("batch_size", batch_size, 1, write=64)
    seed = check_seed(seed)
    if fine_tune and data is None:
        raise SparsityError(f"data=None, and fine_tune={fine_tune} trains: write data=loader, or fine_tune=0")
    for name, given in (("optimizer", optimizer), ("loss", loss)):
        if not (callable(given) or (given is None and name == "optimizer")):
            raise SparsityError(f"{name}={type(given).__name__} cannot be called: write a function, or leave it out")
    check_flag("progress", progress)
    epochs = Epochs(((), ()) if data is None else data, batch_size, seed)
    check_state(model)
    draft, numbers = Draft(copied(model)), numbers_of(model)
    training = Training(epochs, fine_tune, optimizer, loss, seed, progress)
    with torch.inference_mode(False), torch.no_grad(), fork_random_states(seed):
        _try(draft, asked, training, bits, numbers)
        taken: list[Step] = []
        for place, (step, share) in enumerate(zip(asked, _shares(fine_tune, asked), strict=True)):
            if step.free:
                assert bits is not None
                step = found_at(bits, step, asked[place + 1 :], draft, numbers)
            step.train(draft, replace(training, epochs=share))
            taken.append(step)
        for name, parameter in draft.model.named_parameters():
            if parameter.dim() > 1 and name not in draft.weights():
                draft.left_alone.setdefault(
                    name, "no trainable weight of a Linear or Conv layer, kept at 16 bits a number"
                )
        content, account = encode_draft(draft, numbers)
        architecture = next((step.make for step in asked if isinstance(step, Narrow)), model)
        decoded = decode_network(content, architecture)
    if architecture is not model:
        decoded.train(model.training)
    return Compressed(decoded, content, account, tuple(taken), draft.left_alone)


def _try(draft: Draft, steps: Sequence[Step], training: Training, bits: float | None, numbers: int) -> None:
    """Refuse what would otherwise fail when some of the steps have been trained."""
    needing = next((type(step).__name__ for step in steps if isinstance(step, Prune | Quantise | Share)), None)
    if needing and not draft.weights():
        raise SparsityError(
            f"model={type(draft.model).__name__} has no trainable weight of a Linear or Conv layer, which {needing} would "
            "change: write [Code()], or model.requires_grad_(True)"
        )
    for step in steps:
        step.check()
    if training.epochs:
        training.check(copied(draft.model))
        if bits is not None and not steps[0].free:  # else it is seen at once
            check_reachable(bits, steps, draft.copy(), numbers)


def _shares(epochs: int, steps: Sequence[Step]) -> list[int]:
    """The epochs of each step; what does not divide goes to the first ones."""
    places = [place for place, step in enumerate(steps) if not isinstance(step, Code)] or [0]
    shares = [0] * len(steps)
    for turn in range(epochs):
        shares[places[turn % len(places)]] += 1
    return shares


def decompress(content: bytes | str | Path, model: nn.Module | Callable[[float], nn.Module]) -> nn.Module:
    """Rebuild a network from its bytes; nothing of the content is run.

    Args:
        content: ``compress(...).content``, or the path of the file that :meth:`Compressed.save` wrote.
        model: the dense architecture that was compressed, with any weights; it is left as it was. After ``Narrow(make)``,
            ``make``.

    Raises:
        SparsityError: if it is no such content, a damaged one, or one of another architecture.

    Example:
        >>> decompress(b"text", nn.Linear(2, 1))
        Traceback (most recent call last):
        lightning_sparse.SparsityError: content is no compressed network: give what compress(...).content holds, or its file
    """
    if isinstance(content, str | Path):
        try:
            content = Path(content).read_bytes()
        except (OSError, ValueError) as error:
            raise SparsityError(
                f"content={str(content)!r} cannot be read ({error}): give the path of a file that Compressed.save wrote"
            ) from error
    return decode_network(content, model)
