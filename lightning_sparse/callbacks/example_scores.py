"""Score every training image by what the network says of it while it learns."""

from __future__ import annotations

from lightning.pytorch import Trainer
from torch import Tensor

from lightning_sparse.callbacks.looks_at_examples import LooksAtExamples
from lightning_sparse.callbacks.trainer.images_of_split import probe_of
from lightning_sparse.callbacks.trainer.windows import check_window, windows_of
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.measure.classifier import Forward
from lightning_sparse.measure.examples.found_noise import noise_records
from lightning_sparse.measure.images_and_labels import Data
from lightning_sparse.results.records import Measured


class ExampleScores(LooksAtExamples):
    """Gather nine scores of training images: VOG three ways, loss, EL2N, forgetting, AUM, and two blind ones.

    :class:`~lightning_sparse.measure.examples.history.ExampleHistory` says what they are. Where it is known which labels are
    wrong, their AUROC says how well each finds them; docs/examples.md has figures. At the end of an epoch it looks, in eval
    mode, at images that are never augmented, and changes nothing. Under DDP rank zero looks, and :meth:`measured` is rank
    zero's.

    Args:
        probe: ``(images, labels)``, or a loader of such batches, used whole: floats in [0, 1], shape (n, C, H, W). None takes
            training images of the Trainer's data module, if it has a ``split(name, most)`` as ours has.
        images: how many training images at most, without a probe.
        every: epochs between two looks, an int >= 1.
        window: the share of the training, in (0, 0.5], that is early, and that is late.
        batch_size: images per pass.
        mean: as in :func:`~lightning_sparse.measure.as_classifier`.
        std: as in ``as_classifier``.
        forward: as in ``as_classifier``.

    Raises:
        SparsityError: for arguments out of range; before training, for images that the model cannot classify.

    Example:
        >>> from lightning_sparse import GradualPruning
        >>> import torch
        >>> images, labels = torch.rand(100, 1, 8, 8), torch.randint(0, 10, (100,))
        >>> callbacks = [GradualPruning(0.9), ExampleScores((images, labels))]
    """

    def __init__(
        self,
        probe: Data | None = None,
        *,
        images: int = 2000,
        every: int = 1,
        window: float = 1 / 3,
        batch_size: int = 256,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        forward: Forward | None = None,
    ) -> None:
        super().__init__(batch_size, mean, std, forward)
        self.probe, self.window = probe, check_window(window)
        self.images, self.every = check_count("images", images, write=2000), check_count("every", every)

    def read(self, trainer: Trainer | None) -> tuple[Tensor, Tensor]:
        """Return the probe, or images of the data module."""
        return probe_of(trainer, self.probe, self.images)

    def due(self, trainer: Trainer) -> list[str]:
        """All looks count for the whole, those near the start for ``early``, and those near the end for ``late``."""
        return [] if (trainer.current_epoch + 1) % self.every else ["", *windows_of(trainer, self.window)]

    def measured(self, wrong: Tensor | None = None, *, seed: int = 0) -> Measured:
        """Return what the training has shown so far.

        Args:
            wrong: (n,), booleans: which labels are known to be wrong, as ``ImageData.wrong_labels`` gives them.
            seed: of the score that is drawn at random.

        Returns:
            Records: those of :func:`~lightning_sparse.measure.examples.found_noise.noise_records`. Arrays: each score over
            all looks, (n,), under ``example_<score>``; ``labels``; ``wrong`` where it is known.

        Raises:
            SparsityError: before the first look, and on ranks other than zero.
        """
        if "" not in self._histories:
            raise SparsityError("no epoch has been looked at: call measured() after trainer.fit(), on rank zero")
        whole = self._histories[""]
        arrays = {f"example_{name}": values for name, values in whole.scores(seed).items()} | {
            "labels": whole.labels.numpy()
        }
        if wrong is not None:
            arrays["wrong"] = wrong.numpy()
        return Measured(noise_records(self._histories, wrong, seed=seed), arrays)
