"""What may be changed in an input, and how it is attacked: the pixels of an image, or the words of a text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from lightning_sparse.measure.robustness.trust import THRESHOLDS
from lightning_sparse.results.records import Record

WITHOUT_GRADIENT = {"square", "noise", "pwws", "greedy-margin"}


class Walk(NamedTuple):
    """How far and how long an attack goes; it ignores what it has no use for."""

    eps: float
    steps: int
    restarts: int
    seed: int
    start: Tensor | None


@dataclass(frozen=True)
class Threat(ABC):
    """What an attacker may do; its subclasses are what is measured, one for each kind of norm.

    Attributes:
        norm: its name.
        unmade: the checks that mean nothing here, and why.
        words: the embedding whose vectors gradients are of; None for pixels.
        what: what is attacked, in the plural.
        attacks: those that can be asked for.
        once: of these, those that find how far an input is from breaking, which answers for every eps.
        noise_limit: what share random changes may break after all attacks have failed.
    """

    norm: str
    unmade: Mapping[str, str] = field(default_factory=dict)
    words: nn.Embedding | None = None
    what: ClassVar[str]
    attacks: ClassVar[tuple[str, ...]]
    once: ClassVar[tuple[str, ...]] = ()
    noise_limit: ClassVar[float] = THRESHOLDS.noise

    @classmethod
    @abstractmethod
    def in_place_of(cls, attack: str, classes: int) -> tuple[str, str]:
        """The attack that runs where ``attack`` of a tier is asked for, and why it is another; empty if it is the same."""

    @abstractmethod
    def in_words(self, attack: str, walk: Walk, classes: int) -> str:
        """Describe an attack, for a record."""

    @abstractmethod
    def run(
        self, attack: str, classifier: nn.Module, inputs: Tensor, labels: Tensor, walk: Walk
    ) -> tuple[Tensor, Tensor]:
        """Attack; return the points where it ended, and which inputs break, (n,), bool."""

    def nearest(self, attack: str, classifier: nn.Module, inputs: Tensor, labels: Tensor, walk: Walk) -> Tensor:
        """The eps at which an attack of ``once`` breaks each input, (n,), infinite where it does not."""
        raise NotImplementedError

    def unmoved(self, inputs: Tensor) -> Tensor:
        """The points (n, ...) of inputs that nothing has changed, on the CPU."""
        raise NotImplementedError

    def around(self, classifier: nn.Module, inputs: Tensor, eps: float) -> Tensor:
        """The logits (n, classes) at random points of the inputs' balls; gradients are those at these points."""
        raise NotImplementedError

    def everything(self, inputs: Tensor) -> float:
        """The eps at which the ball around any input holds every one."""
        raise NotImplementedError

    def rows(self, inputs: Tensor) -> list[Record]:
        """What else has to be known of the inputs."""
        return []
