"""What is known of a training that reached some epoch, in plain NumPy and Python."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Checkpoint:
    """A training that has reached `epoch`: all that its next epoch depends on.

    Attributes:
        epoch: epochs trained.
        weights: the model's variables, random states left out, in the model's order.
        optimizer: the optimizer's variables (iteration, learning rate, slots), in its order.
        history: per epoch the score and `loss` (running means over the epoch, dropout on, as Keras reports
            them) and, with validation data, `EVALUATED`; `_error` is a standard error.
        seconds: per epoch, the time the training step took; the only part that the machine decides.
        parameters: how many numbers the network has.
        stopped: whether it ended there: by early stopping, or because a loss was not finite.
    """

    epoch: int
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    history: dict[str, list[float]]
    seconds: list[float]
    parameters: int
    stopped: bool = False

    def done(self, epochs: int) -> bool:
        """Whether a training to `epochs` ends here."""
        return self.stopped or self.epoch >= epochs

    @property
    def failure(self) -> str | None:
        """Why nothing came of the training: a loss that is not finite; None if all is well."""
        for name, values in self.history.items():
            if values and not np.isfinite(values[-1]):
                return f"{name} is {values[-1]} after epoch {self.epoch}"
        return None
