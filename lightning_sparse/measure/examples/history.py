"""Scores of single training images, from what a network says of them while it learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from lightning_sparse.anatomy.tokens import PAD, are_tokens
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.examples.look import Look
from lightning_sparse.measure.forgetting.gradient_variance import Floats, GradientVariance

SCORES = ("vog", "vog_relative", "vog_loss", "loss", "el2n", "forgetting", "aum", "input_norm", "random")
"""By name, as :meth:`ExampleHistory.scores` explains them; the last two know nothing of the network."""


class ExampleHistory:
    """Follow fixed images from look to look, and score each. All scores are turned so that high is suspect.

    It keeps sums: six numbers an image, and four a pixel for the two variances of gradients.

    Args:
        images: (n, C, H, W), of which only the norms are kept.
        labels: (n,), as they are given to the network, right or wrong.

    Attributes:
        count: the number of looks.

    Example:
        >>> from lightning_sparse.measure.examples.look import Look
        >>> history, nothing = ExampleHistory(torch.rand(2, 1, 1, 1), torch.tensor([0, 0])), torch.zeros(2, 1, 1)
        >>> for first in (1.0, -1.0):  # the first image is right, then forgotten; the second is never right
        ...     history.add(Look(torch.tensor([[first, 0.0], [0.0, 3.0]]), nothing, nothing))
        >>> history.scores()["aum"].tolist(), history.scores()["forgetting"].tolist()
        ([-0.0, 3.0], [1.0, 2.0])
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.labels, self.count = labels, 0
        seen = (images != PAD).float() if are_tokens(images) else images
        self._norm = seen.flatten(1).norm(dim=1)
        self._logit, self._loss = GradientVariance(), GradientVariance()
        self._sums = torch.zeros(3, len(labels), dtype=torch.float64)  # loss, EL2N, margin
        self._right = torch.zeros(2, len(labels), dtype=torch.bool)  # at the last look, ever
        self._forgotten = torch.zeros(len(labels), dtype=torch.float64)

    def add(self, look: Look) -> None:
        """Add a look at the same images, in the same order."""
        logits, labels = look.logits.double(), self.labels
        if len(logits) != len(labels):
            raise SparsityError(f"a look has {len(logits)} images and this history {len(labels)}: give the same images")
        self._logit.add(look.of_logit)
        self._loss.add(look.of_loss)
        own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
        others = logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(dim=1)
        error = (logits.softmax(dim=1) - one_hot(labels, logits.shape[1])).norm(dim=1)
        # Not in place, so that a state_dict given out earlier stays as it was.
        self._sums = self._sums + torch.stack([cross_entropy(logits, labels, reduction="none"), error, own - others])
        right = own > others
        self._forgotten = self._forgotten + (self._right[0] & ~right)
        self._right = torch.stack([right, self._right[1] | right])
        self.count += 1

    @property
    def right(self) -> Tensor:
        """Whether each image had its given label at the last look, (n,) booleans."""
        return self._right[0]

    def scores(self, seed: int = 0) -> dict[str, Floats]:
        """Give all of :data:`SCORES`, each (n,); NaN where they are undefined, as all but two are before the first look.

        ``vog``: deviation of the gradient of the given label's logit (:class:`GradientVariance`), and ``vog_loss`` that of
        the loss; ``vog_relative``: the norm of the first deviation over the norm of the mean gradient. ``loss``: mean
        cross-entropy; ``el2n``: mean norm of softmax less one-hot (Paul et al. 2021); ``aum``: mean largest other logit
        less the label's (Pleiss et al. 2020, turned round); ``forgetting``: how often right became wrong from look to look
        (Toneva et al. 2019), and the number of looks for an image that was never right. ``input_norm``: of the pixels, or
        the root of a text's number of words; ``random``: drawn by ``seed``.
        """
        once = np.nan if self.count == 0 else 1.0
        loss, el2n, margin = (self._sums / max(self.count, 1)).numpy() * once
        forgetting = torch.where(self._right[1], self._forgotten, float(self.count)).numpy() * once
        blank = np.full(len(self.labels), np.nan)
        return {
            "vog": self._logit.scores() if self.count else blank,
            "vog_relative": self._logit.relative() if self.count else blank,
            "vog_loss": self._loss.scores() if self.count else blank,
            "loss": loss,
            "el2n": el2n,
            "forgetting": forgetting,
            "aum": -margin,
            "input_norm": self._norm.double().numpy(),
            "random": np.random.default_rng((7, seed)).random(len(self.labels)),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the state so far, loadable with ``weights_only=True``."""
        own = {"count": self.count, "sums": self._sums, "right": self._right, "forgotten": self._forgotten}
        return own | {"logit": self._logit.state_dict(), "loss": self._loss.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._logit.load_state_dict(state["logit"])
        self._loss.load_state_dict(state["loss"])
        self.count, self._right = int(state["count"]), state["right"].cpu()
        self._sums, self._forgotten = state["sums"].cpu(), state["forgotten"].cpu()
