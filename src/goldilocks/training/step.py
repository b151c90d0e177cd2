"""One step of the optimizer: all that happens between the gradients of a batch and the next batch.

unscaling -> penalties -> transforms of gradients -> clipping -> optimizer
          -> limits of norms -> mean of weights -> schedule

The module trains with it, and a rehearsal (the range test, the health check, the measurement of
threads) takes the same one: what is added here holds for all of them.
"""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.optim import Optimizer

from goldilocks.optimizers.flat_parameters import FlatParameters
from goldilocks.optimizers.optimizer import split_parameters, switch
from goldilocks.regularization.averaging import WeightAverage
from goldilocks.regularization.gradient_transforms import GradientTransform
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
        transforms: Of the gradients, in their order.
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
        transforms: Sequence[GradientTransform] = (),
        flat: FlatParameters | None = None,
        schedule: Schedule | None = None,
        average: WeightAverage | None = None,
        scaler: Any = None,
    ) -> None:
        self.optimizer = optimizer
        self.regularization = regularization
        self.gradients = gradients
        self.transforms = transforms
        self.flat = flat
        self.schedule = schedule
        self.average = average
        self.scaler = scaler
        self.trained = [p for p in network.parameters() if p.requires_grad]
        self.moved = [p for group in optimizer.param_groups for p in group["params"]]
        self.weights, _ = split_parameters(network)
        self.has_penalty = bool(regularization.l1 or regularization.l2)
        self.taken = 0  # steps, of the whole run: who resumes one sets it

    def begin(self) -> None:
        """Before the first batch, and again after weights were evaluated:
        the network has the weights that are trained.
        """
        switch(self.optimizer, training=True)

    def end(self) -> None:
        """The network has the weights that are evaluated and kept: see `switch`.

        Going there and back rounds. So a training ends every epoch here, and not only when it
        validates or saves: one that is resumed goes on with the same bits.
        """
        switch(self.optimizer, training=False)

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
        for transform in self.transforms:
            transform(self.trained, self.taken)
        self.gradients.clip(self.trained)
        if self.flat is not None:
            self.flat.gather()

    def after_optimizer(self) -> None:
        """Forgets the gradients, and does what follows from the weights that have moved."""
        self.taken += 1
        for parameter in self.trained:
            parameter.grad = None
        if self.regularization.max_norm:
            limit_norms(self.weights, self.regularization.max_norm)
        if self.average is not None:
            self.average.update()
        if self.schedule is not None:
            self.schedule.on_step()


class WrappedStep(OptimizerStep):
    """The same step within Lightning's wrappers:
    with several devices, a scaler, or a callback that watches single steps.

    Lightning unscales, and calls `before_optimizer` by the module's `on_before_optimizer_step`.

    Args:
        module: Whose optimizer it is.
        given: See OptimizerStep.
    """

    def __init__(self, module: pl.LightningModule, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.module = module

    def backward(self, loss: Tensor) -> None:
        self.module.manual_backward(loss)

    def take(self) -> None:
        optimizer: Any = self.module.optimizers()
        optimizer.step()
        # Lightning calls this hook in automatic optimization only.
        for callback in self.module.trainer.callbacks:  # type: ignore[attr-defined]
            callback.on_before_zero_grad(self.module.trainer, self.module, self.optimizer)
        self.after_optimizer()
