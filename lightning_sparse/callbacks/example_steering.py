"""Draw some training images more often, less often, later or not at all, by a score of each."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_sparse.anatomy.isolation import fork_random_states
from lightning_sparse.callbacks.looks_at_examples import LooksAtExamples
from lightning_sparse.callbacks.trainer.private import own_sampler, start_loaders, train_loaders
from lightning_sparse.callbacks.trainer.resumed_from import restoring
from lightning_sparse.callbacks.trainer.windows import share_done
from lightning_sparse.errors import SparsityError, check_choice, check_share
from lightning_sparse.measure.classifier import Forward
from lightning_sparse.measure.examples.chosen import chosen_in_classes
from lightning_sparse.measure.examples.history import SCORES

ACTIONS = {"drop": 0.0, "down": 0.25, "up": 4.0, "order": 0.0}
"""By action: the weight of the chosen images, where the others have 1."""


class ExampleSteering(LooksAtExamples):
    """Change which training images are drawn, from ``begin`` on, by a score from the training so far.

    Scores are fixed at ``begin``, or the steered training would score its own steering. Of every class, as labels are given,
    the ``share`` with the highest scores is chosen. An epoch has as many images as before, so that a steered training takes
    as many optimizer steps; losses and ``training_step`` are not touched. The order stays a function of seed and epoch.

    What it does is measured in docs/examples.md. Scores that find wrong labels are no promise of a better network, and
    ``"vog"`` in particular is there to be measured: compare with ``score="random"`` of the same share before you trust it.

    Args:
        score: one of :data:`~lightning_sparse.measure.examples.history.SCORES`, of which high is suspect; ``"random"``, a
            control; ``"oracle"``, the labels that ``data.label_noise`` is known to have planted, another one.
        action: ``"drop"`` (never drawn), ``"down"`` (a quarter as often as others), ``"up"`` (four times as often) or
            ``"order"`` (last in every epoch; one process only).
        share: of each class, in (0, 1).
        begin: the share of the training after which it steers, in (0, 1).
        batch_size: images per pass of a look.
        mean: as in :func:`~lightning_sparse.measure.as_classifier`.
        std: as in ``as_classifier``.
        forward: as in ``as_classifier``.

    Raises:
        SparsityError: for arguments out of range; before training, if the training images are not those of an
            :class:`~lightning_sparse.data.ImageData`, whose sampler says which image is which.

    Example:
        >>> from lightning_sparse import GradualPruning
        >>> callbacks = [GradualPruning(0.9), ExampleSteering("loss", share=0.2)]
    """

    def __init__(
        self,
        score: str = "loss",
        *,
        action: str = "drop",
        share: float = 0.2,
        begin: float = 0.5,
        batch_size: int = 256,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        forward: Forward | None = None,
    ) -> None:
        super().__init__(batch_size, mean, std, forward)
        self.score = check_choice("score", score, (*SCORES, "oracle"))
        self.action = check_choice("action", action, ACTIONS)
        for name, value in (("share", share), ("begin", begin)):
            if not 0.0 < check_share(name, value) < 1.0:
                raise SparsityError(f"{name}={value} is not in (0, 1): write a share such as 0.2")
        self.share, self.begin = float(share), float(begin)
        self._weights: Tensor | None = None

    def read(self, trainer: Trainer | None) -> tuple[Tensor, Tensor]:
        """Return all training images of the data module, in the order of its sampler's indices."""
        data: Any = getattr(trainer, "datamodule", None)
        if not hasattr(data, "wrong_labels"):
            raise SparsityError(
                "ExampleSteering needs to know which image is which, and a batch does not say it: train with "
                "trainer.fit(model, datamodule=ImageData(...)) of lightning_sparse.data"
            )
        if self.score == "oracle" and not data.label_noise:
            raise SparsityError(
                "score='oracle' needs planted wrong labels: write data.label_noise=0.2, or score='loss'"
            )
        with fork_random_states(0):
            found: tuple[Tensor, Tensor] = data.split("train")
        return found

    def due(self, trainer: Trainer) -> list[str]:
        """Every look before ``begin`` counts."""
        return [""] if self._weights is None else []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what it cannot steer."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        if self.action == "order" and trainer.world_size > 1:
            raise SparsityError("action='order' has no order over several processes, which shuffle anew: write 'down'")
        if trainer.reload_dataloaders_every_n_epochs:  # type: ignore[attr-defined]
            raise SparsityError("reload_dataloaders_every_n_epochs makes samplers that are not steered: leave it out")
        if not (trainer.ckpt_path is None and trainer.global_step > 0):
            self._weights = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the sampler; go on steering in a run that is resumed."""
        super().on_train_start(trainer, pl_module)
        self._samplers(trainer)
        if self._weights is not None:
            self._steer(trainer)
            with fork_random_states(None):  # Lightning has started the loader before this state was there
                start_loaders(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, until ``begin``; then choose."""
        super().on_train_epoch_end(trainer, pl_module)
        if self._weights is None and share_done(trainer) >= self.begin - 1e-9:
            weights = self._choose(trainer) if trainer.is_global_zero else None
            self._weights = trainer.strategy.broadcast(weights)
            self._steer(trainer)

    def _choose(self, trainer: Trainer) -> Tensor:
        history, data = self._histories[""], trainer.datamodule  # type: ignore[attr-defined]
        scores = history.scores(data.shuffle_seed)
        values = scores["random"]
        if self.score == "oracle":
            values = values + data.wrong_labels().numpy()
        elif self.score != "random":
            values = scores[self.score]
        chosen = chosen_in_classes(values, history.labels, self.share)
        return torch.where(chosen, ACTIONS[self.action], 1.0)

    def _samplers(self, trainer: Trainer) -> list[Any]:
        assert self._images is not None
        samplers = [own_sampler(loader) for loader in train_loaders(trainer)]
        if not all(hasattr(one, "steer") and len(one) == len(self._images[1]) for one in samplers):
            raise SparsityError(
                "ExampleSteering steers the loader that ImageData makes, and the Trainer has another: train with "
                "trainer.fit(model, datamodule=ImageData(...)) alone"
            )
        return samplers

    def _steer(self, trainer: Trainer) -> None:
        for sampler in self._samplers(trainer):
            sampler.steer(self._weights, ordered=self.action == "order")

    def _plan(self) -> dict[str, Any]:
        return {"score": self.score, "action": self.action, "share": self.share, "begin": self.begin}

    def state_dict(self) -> dict[str, Any]:
        """All looks so far, and what is drawn."""
        return super().state_dict() | {"plan": self._plan(), "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave; refuse the state of another steering."""
        with restoring("ExampleSteering"):
            plan, weights = state_dict["plan"], state_dict["weights"]
        if plan != self._plan():
            raise SparsityError(
                f"the checkpoint's ExampleSteering was {plan}, and this one is {self._plan()}: resume as it was"
            )
        super().load_state_dict(state_dict)
        self._weights = weights
