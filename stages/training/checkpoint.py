"""The state of a training at the end of an epoch, as NumPy arrays and plain Python values."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Checkpoint:
    """A training that has reached `epoch`: everything that its next epoch depends on.

    Attributes:
        epoch: the number of epochs trained.
        weights: the network's variables, in its order, without the states of random generators.
        optimizer: the optimizer's variables (iteration, learning rate, slots), in its order.
        history: for each epoch, the score and `loss` on the training rows (during the epoch, dropout on, as
            Keras reports them) and, with validation rows, the names in `EVALUATED`; `_error` stands for a
            standard error.
        seconds: for each epoch, the time of its training steps; only this depends on the machine.
        parameters: the number of parameters of the network.
        stopped: whether the training has ended early, by early stopping or because a value in `history` is
            not finite.
    """

    epoch: int
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    history: dict[str, list[float]]
    seconds: list[float]
    parameters: int
    stopped: bool = False

    def done(self, epochs: int) -> bool:
        """Whether a training to epoch `epochs` is finished."""
        return self.stopped or self.epoch >= epochs

    @property
    def failure(self) -> str | None:
        """Why the training failed, which is a value in `history` that is not finite; None if it has not."""
        for name, values in self.history.items():
            if values and not np.isfinite(values[-1]):
                return f"{name} is {values[-1]} after epoch {self.epoch}"
        return None
