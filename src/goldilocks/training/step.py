"""One step of the optimizer: all that happens between the gradients of a batch and the next batch.

unscaling -> penalties -> clipping -> optimizer -> limits of norms -> mean of weights -> schedule

The module trains with it, and a rehearsal (the range test, the health check, the measurement of
threads) takes the same one: what is added here holds for all of them.
"""

from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from goldilocks.optimizers.flat_parameters import FlatParameters
from goldilocks.optimizers.optimizer import split_parameters
from goldilocks.regularization.averaging import WeightAverage
from goldilocks.regularization.strengths import Regularization, add_penalty_gradients, limit_norms
from goldilocks.schedulers.schedule import Schedule
from goldilocks.training.clipping import Gradients


class OptimizerStep:
    """Moves a network's weights by its gradients, which are gone afterwards.

    Args:
        network: Whose parameters the optimizer moves.
        optimizer: At the rate that it has.
        regularization: Strengths of the penalties and of the limit of norms.
        gradients: Clips them, and keeps their norms.
        flat: The vectors that the optimizer moves in place of the parameters; None: it moves these.
        schedule: Is stepped with the optimizer; None: whoever takes the steps sets the rate.
        average: The mean of the weights over the steps; None: none, or one over epochs.
        scaler: Of the losses, in 16 bits; None: none, or the gradients come unscaled.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        regularization: Regularization,
        gradients: Gradients,
        *,
        flat: FlatParameters | None = None,
        schedule: Schedule | None = None,
        average: WeightAverage | None = None,
        scaler: Any = None,
    ) -> None:
        self.optimizer = optimizer
        self.regularization = regularization
        self.gradients = gradients
        self.flat = flat
        self.schedule = schedule
        self.average = average
        self.scaler = scaler
        self.trained = [p for p in network.parameters() if p.requires_grad]
        self.weights, _ = split_parameters(network)
        self.has_penalty = bool(regularization.l1 or regularization.l2)

    def backward(self, loss: Tensor) -> None:
        """Adds a batch's gradients."""
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        loss.backward()

    def take(self) -> None:
        """The whole step."""
        self.before_optimizer()
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.after_optimizer()

    def before_optimizer(self) -> None:
        """Makes of the batches' gradients those that the optimizer moves by."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self.has_penalty:
            add_penalty_gradients(self.weights, self.regularization.l1, self.regularization.l2)
        self.gradients.clip(self.trained)
        if self.flat is not None:
            self.flat.gather()

    def after_optimizer(self) -> None:
        """Forgets the gradients, and does what follows from the weights that have moved."""
        for parameter in self.trained:
            parameter.grad = None
        if self.regularization.max_norm:
            limit_norms(self.weights, self.regularization.max_norm)
        if self.average is not None:
            self.average.update()
        if self.schedule is not None:
            self.schedule.on_step()
