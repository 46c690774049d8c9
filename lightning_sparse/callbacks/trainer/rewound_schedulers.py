"""Learning rates that rewind with the weights."""

from __future__ import annotations

import copy
from typing import Any

from lightning.pytorch import Trainer


class RewoundSchedulers:
    """Takes learning rates back to where they were when the weights were saved.

    Schedulers step after the hooks of the optimizer, so both are done at the start of the next batch.

    Args:
        to: the optimizer step at which the weights are saved.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._saved: dict[str, Any] = {}
        self._done = 0

    def batch_start(self, trainer: Trainer, clock: int, rewound: int) -> None:
        """Save if the step has come, take back if the weights have been rewound since the last batch.

        Args:
            trainer: whose schedulers and optimizers they are.
            clock: optimizer steps taken.
            rewound: how often the weights have been rewound.
        """
        if not self._saved and clock >= self._to:
            self._saved = {
                "schedulers": [
                    [type(config.scheduler).__name__, copy.deepcopy(config.scheduler.state_dict())]
                    for config in trainer.lr_scheduler_configs
                ],
                "groups": [[_settings(group) for group in o.param_groups] for o in trainer.optimizers],
            }
        if rewound > self._done:
            self._done = rewound
            for config, (kind, state) in zip(trainer.lr_scheduler_configs, self._saved["schedulers"], strict=False):
                if type(config.scheduler).__name__ == kind:  # weight averaging may have put its own in the place
                    config.scheduler.load_state_dict(copy.deepcopy(state))
            for optimizer, groups in zip(trainer.optimizers, self._saved["groups"], strict=True):
                for group, saved in zip(optimizer.param_groups, groups, strict=True):
                    group.update(saved)

    def state_dict(self) -> dict[str, Any]:
        """What was saved, and how often it was taken back."""
        return {"saved": self._saved, "done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._saved, self._done = state["saved"], state["done"]


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}
