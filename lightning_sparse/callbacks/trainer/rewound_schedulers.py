"""Learning rates that rewind with the weights."""

from __future__ import annotations

import copy
from typing import Any

from lightning.pytorch import Trainer


class RewoundSchedulers:
    """Take learning rates back to what they were when the weights were saved, at optimizer step ``to``.

    Schedulers step after the hooks of the optimizer, so rates are saved and taken back at the start of the next batch.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._saved: dict[str, Any] = {}
        self._done = 0

    def batch_start(self, trainer: Trainer, clock: int, rewound: int) -> None:
        """Save at the step, and take back if the weights (``rewound`` times so far) were rewound since the last batch."""
        if not self._saved and clock >= self._to:
            schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
            self._saved = {
                "schedulers": [[type(each).__name__, copy.deepcopy(each.state_dict())] for each in schedulers],
                "groups": [[_settings(group) for group in o.param_groups] for o in trainer.optimizers],
            }
        if rewound > self._done:
            self._done = rewound
            for config, (kind, state) in zip(trainer.lr_scheduler_configs, self._saved["schedulers"], strict=False):
                if type(config.scheduler).__name__ == kind:  # weight averaging may have put its own in its place
                    config.scheduler.load_state_dict(copy.deepcopy(state))
            for optimizer, groups in zip(trainer.optimizers, self._saved["groups"], strict=True):
                for group, saved in zip(optimizer.param_groups, groups, strict=True):
                    group.update(copy.deepcopy(saved))  # a rate that is a tensor is changed in place

    def state_dict(self) -> dict[str, Any]:
        """What was saved, and how often the weights had been rewound."""
        return {"saved": self._saved, "done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._saved, self._done = state["saved"], state["done"]


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}
