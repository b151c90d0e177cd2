"""Optimizers that evaluate other weights than they train:
which are where, in a run and a rehearsal.
"""

import itertools

import pytest
import pytorch_lightning as pl
import torch

from fitting import Watcher, fit, gradients, make, vector
from goldilocks.callbacks import BestCheckpoint, LastCheckpoint
from goldilocks.optimizers.optimizer import switch
from goldilocks.training.checkpoints import evaluated_weights, load_checkpoint
from goldilocks.training.rehearsal import Rehearsal, endless

library = pytest.importorskip("pytorch_optimizer")
KINDS = {
    "adamw": lambda groups: library.ScheduleFreeAdamW(groups, lr=0.01),
    "sgd": lambda groups: library.ScheduleFreeSGD(groups, lr=0.3),
}


class Seen(pl.Callback):
    """The weights at the start of each epoch, when it validates and at its end;
    the gradients of every step.
    """

    def __init__(self):
        self.began, self.validated, self.ended, self.gradients = [], [], [], []

    def on_train_start(self, trainer, pl_module):
        optimizer = trainer.optimizers[0]
        optimizer.register_step_pre_hook(self.keep(pl_module.network))

    def keep(self, network):
        first = itertools.count()

        def before(*_):
            if next(first) % 22 == 0:  # steps in an epoch
                self.began.append(vector(network))
            self.gradients.append(gradients(network))

        return before

    def on_validation_start(self, trainer, pl_module):
        self.validated.append(vector(pl_module.network))

    def on_train_epoch_end(self, trainer, pl_module):
        self.ended.append(vector(pl_module.network))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrapped", [False, True], ids=["raw", "wrapped"])
def test_a_run_is_the_library_by_hand(kind, wrapped):
    """One vector, moved by the gradients that the run had, and switched where each epoch ends."""
    seen = Seen()
    watchers = [Watcher()] if wrapped else []
    made = make(optimizer=KINDS[kind], callbacks=[seen, *watchers])
    weights = torch.nn.Parameter(vector(made.network))
    made.trainer.fit(made.module, made.data)
    assert made.module.raw != wrapped
    optimizer = KINDS[kind]([weights])
    for epoch in range(3):
        optimizer.train()
        torch.testing.assert_close(seen.began[epoch], weights.detach(), rtol=0, atol=1e-5)
        for gradient in seen.gradients[epoch * 22 : (epoch + 1) * 22]:
            weights.grad = gradient.clone()
            optimizer.step()
        optimizer.eval()
        assert (seen.began[epoch] - weights).abs().max() > 1e-3
        for found in (seen.validated[epoch], seen.ended[epoch]):
            torch.testing.assert_close(found, weights.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_hold_the_weights_that_are_evaluated(kind, tmp_path):
    seen = Seen()
    kept = [BestCheckpoint(str(tmp_path)), LastCheckpoint(str(tmp_path), min_seconds=0)]
    made = fit(optimizer=KINDS[kind], callbacks=[seen, *kept])
    found = {
        name: evaluated_weights(load_checkpoint(tmp_path / name)["state_dict"])
        for name in ("best.ckpt", "last.ckpt")
    }
    best = seen.validated[made.recorder.best_epoch]
    assert torch.equal(torch.cat([value.flatten() for value in found["best.ckpt"].values()]), best)
    assert torch.equal(
        torch.cat([value.flatten() for value in found["last.ckpt"].values()]), seen.ended[-1]
    )


def test_how_often_it_validates_changes_no_weight():
    once, each = (
        fit(optimizer=KINDS["adamw"], max_epochs=4, check_val_every_n_epoch=every)
        for every in (4, 1)
    )
    assert torch.equal(vector(once.network), vector(each.network))


@pytest.mark.parametrize("kind", KINDS)
def test_a_rehearsal_judges_the_weights_that_are_evaluated(kind):
    """As the range test and the health check do, after every step."""
    made = make(optimizer=KINDS[kind])
    tensors = made.data.tensors["train"]
    batches = endless(made.data.loader_on(torch.device("cpu"), "train", 1.0, batch_size=8))
    rehearsal = Rehearsal(made.module, {}, torch.device("cpu"))
    for _ in range(5):
        rehearsal.take_step(batches)
    trained = vector(rehearsal.network)
    loss = rehearsal.loss_of(tensors)
    evaluated = vector(rehearsal.network)
    assert loss == rehearsal.loss_of(tensors)
    assert (trained - evaluated).abs().max() > 1e-3
    switch(rehearsal.optimizer, training=True)
    torch.testing.assert_close(vector(rehearsal.network), trained, rtol=0, atol=1e-6)
