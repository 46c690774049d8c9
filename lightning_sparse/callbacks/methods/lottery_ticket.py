"""The lottery ticket hypothesis: train, prune, rewind, and again."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Trainer

from lightning_sparse.callbacks.methods.arguments import check_trainings
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.callbacks.trainer.callbacks_of import callbacks_of
from lightning_sparse.callbacks.trainer.optimizer_steps import optimizer_steps
from lightning_sparse.engine.rewinding import Rewind
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.errors import SparsityError, check_flag, check_share


class LotteryTicket(SparseTraining):
    """Several trainings in one fit: after each the smallest weights die, and the rest goes back to where it began.

    Frankle & Carbin 2019, "The lottery ticket hypothesis" (arXiv 1803.03635): iterative magnitude pruning, by the same
    factor each time (they keep 80 % a time, which takes 11 trainings to 0.9 and 22 to 0.99). ``rewind_to`` above 0 goes back
    to an early step instead (Frankle et al. 2020, arXiv 1912.05671). Optimizer state is forgotten and learning rates go back
    too, so that a schedule has to be as long as one training, which is :func:`steps_of_one_training`.

    It costs ``trainings`` times what the other methods cost: give the Trainer that many times the epochs.

    Args:
        final_sparsity: share of connections that are dead in the last training, in [0, 1).
        trainings: how many trainings the fit holds, the first, dense one among them; at least 2.
        rewind_to: where weights go back to, as a share of one training, in [0, 1).
        reinit: the control: in the last training the ticket's connections get new random weights.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Example:
        >>> plan = LotteryTicket(0.91, trainings=3).recipe.resolve(900)
        >>> [(step, round(plan.sparsity(step), 2)) for step in (0, 299, 300, 599, 600, 899)]
        [(0, 0.0), (299, 0.0), (300, 0.7), (599, 0.7), (600, 0.91), (899, 0.91)]
    """

    def __init__(
        self, final_sparsity: float, *, trainings: int = 4, rewind_to: float = 0.0, reinit: bool = False, **others: Any
    ) -> None:
        check_share("final_sparsity", final_sparsity, one_allowed=False)
        check_flag("reinit", reinit)
        check_share("rewind_to", rewind_to, one_allowed=False)
        check_trainings(trainings)
        # The first training is whole; each later one starts at rewind_to.
        self.one_training = 1.0 / (1.0 + (trainings - 1) * (1.0 - rewind_to))
        curve = Curve(0.0)
        for level in range(trainings):
            end = self.one_training * (1.0 + level * (1.0 - rewind_to))
            sparsity = 1.0 - (1.0 - final_sparsity) ** (level / (trainings - 1))
            if level == trainings - 1:
                end, sparsity = 1.0, float(final_sparsity)
            curve = curve.then(min(end, 1.0), sparsity, name=f"training {level + 1}")
        super().__init__(curve, rewind=Rewind(self.one_training * rewind_to, reinit), **others)


def steps_of_one_training(trainer: Trainer) -> int:
    """Return the length of a learning rate schedule in optimizer steps: the whole fit, or one training of a lottery ticket.

    Call it in ``configure_optimizers`` or later.

    Example:
        >>> import torch
        >>> class Module:
        ...     def configure_optimizers(self):
        ...         optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        ...         steps = steps_of_one_training(self.trainer)
        ...         return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)]
    """
    ticket = min(callbacks_of(trainer, LotteryTicket), key=lambda ticket: ticket.one_training, default=None)
    share, total = (ticket.one_training, ticket.steps_of(trainer)) if ticket else (1.0, None)
    steps: float = total or optimizer_steps(trainer, trainer.max_epochs) or trainer.estimated_stepping_batches
    if steps == math.inf:
        raise SparsityError(
            "the training has no end in steps, which a schedule of learning rates needs: give the Trainer max_epochs or "
            "max_steps, or write schedule='constant' for our Classifier (model.schedule=constant on the command line), "
            "without a warmup"
        )
    return round(share * steps)
