"""The learning rates with which a step was made, while a scheduler may have set those of the next one."""

from collections.abc import Iterable
from typing import Any

import torch


class UsedLearningRates:
    """Stands for the optimizer in a watch, which reads the rates in `param_groups` at the end of a step."""

    def __init__(self) -> None:
        self.param_groups: list[dict[str, Any]] = []

    def forget(self) -> None:
        """Forget the rates of the step that has ended."""
        self.param_groups = []

    def note(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """Add the present rates of these optimizers to those of the step."""
        self.param_groups += [
            {"lr": group["lr"]} for optimizer in optimizers for group in optimizer.param_groups
        ]
