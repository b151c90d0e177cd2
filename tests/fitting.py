"""Fits of a moment on made-up rows, for the tests of the trainer, the module and the callbacks."""

from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from goldilocks.callbacks import Recorder
from goldilocks.config.build import build
from goldilocks.data.base import Table, TableData
from goldilocks.models.mlp import MLP
from goldilocks.optimizers.optimizer import split_parameters
from goldilocks.regularization.strengths import Regularization
from goldilocks.schedulers.schedule import build_schedule
from goldilocks.tasks.objective import Objective
from goldilocks.tasks.task import Task
from goldilocks.training.module import TrainingModule
from goldilocks.training.trainer import Trainer, quiet_libraries

FEATURES, CLASSES = 6, 3
LR = "torch.optim.lr_scheduler."
CONSTANT = {"_target_": LR + "ConstantLR", "factor": 1.0, "total_iters": 0}


class MadeUp(TableData):
    """Rows whose target depends on their features, with noise.
    The rows to train on are 3/4 of all.
    """

    def __init__(self, num_rows, task="multiclass", **options):
        super().__init__(task=task, val_fraction=0.2, test_fraction=0.05, **options)
        self.num_rows = num_rows

    def load(self):
        generator = np.random.default_rng(7)
        x = generator.normal(size=(self.num_rows, FEATURES))
        hidden = x[:, :CLASSES] + 0.5 * generator.normal(size=(self.num_rows, CLASSES))
        return Table(x, hidden[:, 0] if self.task == "regression" else hidden.argmax(1))


class Rows(TableData):
    """A table given to the constructor."""

    def __init__(self, features, target, test_rows=None, **options):
        super().__init__(**options)
        self.table = Table(np.asarray(features), np.asarray(target), test_rows=test_rows)

    def load(self):
        return self.table


def ready(data):
    data.setup()
    return data


class History(Checkpoint):
    """The result of each epoch. Lightning calls a `Checkpoint` when
    the epoch's metrics are complete.
    """

    def __init__(self):
        self.metrics, self.seen = [], []

    def on_train_epoch_end(self, trainer, pl_module):
        self.metrics.append(dict(pl_module.epoch_metrics))
        self.seen.append(list(pl_module.sizes))


class StepLog(pl.Callback):
    """Rates and gradients of every optimizer step, read by the optimizer's own hooks:
    the fast path stays fast.
    """

    def __init__(self):
        self.rates, self.gradients = [], []

    def on_train_start(self, trainer, pl_module):
        optimizer = trainer.optimizers[0]
        optimizer.register_step_pre_hook(
            lambda *_: self.rates.append(optimizer.param_groups[0]["lr"])
        )
        optimizer.register_step_post_hook(
            lambda *_: self.gradients.append(gradients(pl_module.network))
        )


class Watcher(pl.Callback):
    """Must see every single step: takes the gradients before penalties and clipping."""

    def __init__(self):
        self.gradients = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append(gradients(pl_module.network))


def gradients(network):
    """All gradients of a network in one vector."""
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def vector(network):
    """All parameters of a network in one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).clone()


def nadam(parameters, **options):
    return torch.optim.NAdam(parameters, lr=5e-3, foreach=True, **options)


def sgd(parameters, lr=0.1, **options):
    return torch.optim.SGD(parameters, lr=lr, **options)


def make_network(seed=0, outputs=CLASSES, **options):
    torch.manual_seed(seed)
    return MLP((FEATURES,), outputs, **{"depth": 2, "width": 16, "output_scale": 1.0, **options})


def make(
    *,
    rows=228,  # 171 to train on: 22 batches of 8, the last of 3
    batch_size=8,
    task="multiclass",
    network=None,
    optimizer=nadam,
    schedule=CONSTANT,
    regularization=None,
    transforms=(),
    seed=3,
    callbacks=(),
    objective=("val/loss", "min"),
    **options,
):
    """Everything for a fit; `options` are the trainer's."""
    quiet_libraries()
    data = MadeUp(rows, task, batch_size=batch_size)
    data.setup()
    regularization = Regularization(**(regularization or {}))
    network = make_network(outputs=data.spec.num_outputs, **(network or {}))
    module = TrainingModule(
        network,
        Task(data.spec, label_smoothing=regularization.label_smoothing),
        lambda network, lr=None: optimizer(
            [{"params": group} for group in split_parameters(network)]
        ),
        lambda optimizer, **steps: build_schedule(schedule, optimizer, **steps),
        regularization,
        transforms,
        seed=seed,
    )
    recorder, history, log = Recorder(Objective(*objective)), History(), StepLog()
    live = {"callbacks": [recorder, log, *callbacks, history], "shuffle_seed": seed}
    node = {
        "_target_": "goldilocks.training.trainer.Trainer",
        "accelerator": "cpu",
        "max_epochs": 3,
        **options,
    }
    trainer = build(node, Trainer, "trainer", **live)
    return SimpleNamespace(
        trainer=trainer,
        module=module,
        network=network,
        data=data,
        recorder=recorder,
        history=history,
        log=log,
    )


def fit(**options):
    """Makes and trains."""
    made = make(**options)
    made.trainer.fit(made.module, made.data)
    return made


def assert_same(one, other):
    """The same to the bit: weights and buffers, optimizer, metrics of every epoch, steps."""
    assert one.trainer.global_step == other.trainer.global_step
    ours, theirs = one.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    ours, theirs = (fitted.trainer.optimizers[0].state_dict()["state"] for fitted in (one, other))
    assert ours.keys() == theirs.keys()
    for index, state in ours.items():
        assert all(
            torch.equal(torch.as_tensor(state[key]), torch.as_tensor(theirs[index][key]))
            for key in state
        )
    assert one.log.rates == other.log.rates
    for ours, theirs in zip(one.history.metrics, other.history.metrics, strict=True):
        # A training metric is a sum over rows, taken a chunk at a time:
        # the last digit of a regression's may differ.
        exact = [key for key in ours if not key.startswith("train/") or key == "train/loss"]
        assert {key: ours[key] for key in exact} == {key: theirs[key] for key in exact}
        assert ours == pytest.approx(theirs, rel=1e-6)
    assert one.history.seen == other.history.seen
