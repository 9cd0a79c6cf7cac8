"""The state of a training at the end of an epoch, in plain NumPy and Python."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Checkpoint:
    """A training at the end of `epoch`: all that the next epoch depends on.

    Attributes:
        epoch: epochs trained.
        weights: the model's variables in its order, without random states.
        optimizer: the optimizer's variables (iteration, learning rate, slots) in its order.
        history: for each epoch, the score and `loss` (running means over the epoch, dropout on, as Keras
            reports them) and, with validation data, `EVALUATED`; `_error` is a standard error.
        seconds: for each epoch, how long its training took, without evaluation; not reproducible.
        parameters: how many numbers the network's variables have.
        stopped: whether training ended here, by early stopping or because a loss was not finite.
    """

    epoch: int
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    history: dict[str, list[float]]
    seconds: list[float]
    parameters: int
    stopped: bool = False

    def done(self, epochs: int) -> bool:
        """Whether a training to epoch `epochs` is complete."""
        return self.stopped or self.epoch >= epochs

    @property
    def failure(self) -> str | None:
        """Why the training failed: a loss or score that is not finite; None if it did not."""
        for name, values in self.history.items():
            if values and not np.isfinite(values[-1]):
                return f"{name} is {values[-1]} after epoch {self.epoch}"
        return None
