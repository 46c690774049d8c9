"""Everything private to Lightning that this package uses: the one place to look after an upgrade."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher


def spawns_its_ranks(trainer: Trainer) -> bool:
    """Whether the strategy spawns its ranks from this process, rather than running the command again."""
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def steps_without_backward(trainer: Trainer) -> bool:
    """Whether steps have no backward pass, as in the epoch that stochastic weight averaging adds."""
    return bool(getattr(trainer.fit_loop, "_skip_backward", False))


def make_loader_anew(trainer: Trainer) -> None:
    """Start the loader of a resumed run again: Lightning started it before the random states could be restored.

    Lightning 2.5.0 and older do so themselves. Workers read ahead before Lightning tells the sampler the epoch.
    """
    if hasattr(trainer.fit_loop, "is_resuming"):
        start_loaders(trainer)


def train_loaders(trainer: Trainer) -> list[Any]:
    """The loaders of the training, as Lightning has prepared them."""
    return trainer.fit_loop._combined_loader.flattened  # type: ignore[union-attr]


def loader_to_come(trainer: Trainer) -> Any:
    """What the training will read, in ``setup``: a loader, or several, as the user has made it."""
    return trainer.fit_loop._data_source.dataloader()


def own_sampler(loader: Any) -> Any:
    """The sampler that a loader was made with, inside what Lightning puts around it for several processes."""
    sampler = getattr(loader, "sampler", None)
    return getattr(getattr(sampler, "dataset", None), "_sampler", sampler)


def start_loaders(trainer: Trainer) -> None:
    """Start the loaders of the training at the present epoch, whatever has been read ahead."""
    for loader in train_loaders(trainer):
        _set_sampler_epoch(loader, trainer.current_epoch)
    iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]


def averaged_over_epoch(trainer: Trainer) -> set[str]:
    """Names of what the training has logged in this epoch and averages over it; no checkpoint holds the sums."""
    logged = [result.meta for result in trainer.fit_loop.epoch_loop._results.values()]
    names = {meta.name for meta in logged if meta.on_epoch}
    return names | {f"{name}_epoch" for name in names}


def first_batches(trainer: Trainer, count: int) -> list[Any]:
    """Return the next batches that training will read; it still reads them, and no hook comes in between."""
    fetcher: Any = trainer.fit_loop._data_fetcher
    ahead = [*getattr(fetcher, "batches", ())]  # of a stream, Lightning has fetched one already
    rest = _rest(fetcher.iterator)
    taken = list(islice(rest, max(0, count - len(ahead))))
    fetcher.iterator = chain(taken, rest)
    return [batch for batch, _, _ in (ahead + taken)[:count]]


def _rest(iterator: Any) -> Iterator[Any]:
    """What is left of an iterator, without calling ``iter()`` on it, at which Lightning's would start again."""
    while True:
        try:
            yield next(iterator)
        except StopIteration:
            return


def moved_to_device(trainer: Trainer, module: LightningModule, batch: Any) -> Any:
    """A batch as ``training_step`` gets it: in the Trainer's precision and after the module's own transfer hooks."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def comm_hook_of(trainer: Trainer) -> object | None:
    """The communication hook that a DDPStrategy was given, whether it registers it or not."""
    return getattr(trainer.strategy, "_ddp_comm_hook", None)


def loss_scaler_of(trainer: Trainer) -> object | None:
    """What scales the loss under float16, or None."""
    return getattr(trainer.precision_plugin, "scaler", None)
