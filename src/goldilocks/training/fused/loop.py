"""Lightning's fit loop for a run that trains together with others.

Lightning takes about 4 ms an epoch for itself, as long as a small network's share of the steps.
Here an epoch is the module's and the callbacks' hooks, in Lightning's order, and the counters that
its checkpoints hold. Everything before and after the epochs is Lightning's own.

Private names of Lightning; tests/training/fused/test_loop.py compares the checkpoints with those of
a run alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, ProgressBar
from torch import Tensor

from goldilocks.training.fused.checkpoints import PostponedCheckpoints
from goldilocks.training.fused.stack import Judgement, Steps, set_apart
from goldilocks.training.fused.turns import Partner
from goldilocks.training.module import TrainingModule
from goldilocks.training.trainer import FitLoop, Trainer

Hook = Callable[..., None]


class FusedFitLoop(FitLoop):
    """See the module.

    Args:
        trainer: Of the run.
        partner: That asks for the steps.
    """

    def __init__(self, trainer: Trainer, partner: Partner) -> None:
        super().__init__(trainer, trainer.fit_loop.max_epochs or 0, trainer.max_steps)
        self.trainer: Trainer
        self.partner = partner
        self.checkpoints = PostponedCheckpoints()
        trainer.strategy.checkpoint_io = self.checkpoints
        self.hooks: dict[tuple[str, bool | None], list[Hook]] = {}

    def on_run_start(self) -> None:
        self.module: Any = self.trainer.lightning_module
        self.train_loader: Any = self.trainer.train_dataloader
        super().on_run_start()
        self.val_loader: Any = self.trainer.val_dataloaders

    def on_run_end(self) -> None:
        set_apart(self.module)
        self.checkpoints.write()
        super().on_run_end()

    def on_advance_start(self) -> None:
        self.train_loader.set_epoch(self.trainer.current_epoch)
        self.epoch_progress.increment_ready()
        self.call("on_train_epoch_start")
        self.module.on_train_epoch_start()
        self.epoch_progress.increment_started()

    def advance(self) -> None:
        """The steps of an epoch, and its validation."""
        loop = self.epoch_loop
        loop.reset()
        batches = loop.batch_progress
        count = len(self.train_loader)
        for number, item in enumerate(self.train_loader):
            batches.is_last_batch = number == count - 1
            batches.increment_ready()
            batches.increment_started()
            taken = self.partner.ask(Steps(self.module, item))
            self.module.count(taken if taken is not None else self.module.take(item))
            batches.increment_processed()
            self.module.on_train_batch_end(None, item, number)
            batches.increment_completed()
            if batches.is_last_batch and self.validates():
                self.validate()
            loop._batches_that_stepped += 1
            if self.trainer.should_stop and loop._is_training_done:
                break

    def validates(self) -> bool:
        """Whether this epoch is validated."""
        trainer = self.trainer
        every = trainer.check_val_every_n_epoch or 1
        done = (trainer.current_epoch + 1) % every == 0
        if not (trainer.enable_validation and done):
            return False
        if self.val_loader is None:
            trainer.validating = True
            self.epoch_loop.val_loop.setup_data()
            trainer.training = True
            self.val_loader = trainer.val_dataloaders
        return bool(self.val_loader)

    @torch.no_grad()
    def validate(self) -> None:
        """Each network's passes are its own; the metrics are computed for all at once."""
        trainer = self.trainer
        loop = self.epoch_loop.val_loop
        trainer.validating = True
        loop.batch_progress.reset_on_run()
        self.module.on_validation_model_eval()
        self.call("on_validation_start")
        self.call("on_validation_epoch_start")
        self.module.on_validation_epoch_start()
        parts = []
        for number, item in enumerate(self.val_loader):
            loop.batch_progress.is_last_batch = number == len(self.val_loader) - 1
            loop.batch_progress.increment_ready()
            loop.batch_progress.increment_started()
            with trainer.precision_plugin.val_step_context():
                parts += self.module.outputs_of(item)
            loop.batch_progress.increment_processed()
            loop.batch_progress.increment_completed()
        outputs, targets = (joined(of) for of in zip(*parts, strict=True))
        question = Judgement(self.module, outputs, targets)
        self.module.evaluated_rows = len(targets)
        self.module.judged = self.partner.ask(question)
        self.call("on_validation_epoch_end")
        self.call("on_validation_end")
        self.module.on_validation_model_train()
        trainer.training = True

    def on_advance_end(self) -> None:
        self.epoch_progress.increment_processed()
        self.call("on_train_epoch_end", monitoring=False)
        self.module.on_train_epoch_end()
        self.call("on_train_epoch_end", monitoring=True)
        self.epoch_progress.increment_completed()

    def call(self, name: str, monitoring: bool | None = None) -> None:
        """The callbacks' hook, of those that have one of their own.

        Args:
            name: Of the hook.
            monitoring: Of those that look at metrics only, or of the others; None: of all.
        """
        if (name, monitoring) not in self.hooks:
            self.hooks[name, monitoring] = hooks_of(self.trainer, name, monitoring)
        for hook in self.hooks[name, monitoring]:
            hook(self.trainer, self.module)


def joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def hooks_of(trainer: Any, name: str, monitoring: bool | None) -> list[Hook]:
    """A hook of the callbacks, without those that do nothing, and without progress bars:
    those who train together are told of together.
    """
    return [
        getattr(callback, name)
        for callback in trainer.callbacks
        if getattr(type(callback), name) is not getattr(pl.Callback, name)
        and not isinstance(callback, ProgressBar)
        and monitoring in (None, isinstance(callback, EarlyStopping | Checkpoint))
    ]


def take_steps_together(trainer: Trainer, module: TrainingModule, partner: Partner) -> None:
    """Makes a run ask for its steps instead of taking them."""
    module.alone = False
    trainer.fit_loop = FusedFitLoop(trainer, partner)
