"""A run that goes on from a checkpoint ends with the weights of one that was not interrupted,
to the bit.
"""

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Checkpoint

from fitting import FEATURES, assert_same, make
from goldilocks.config.options import options
from goldilocks.models.mlp import MLP
from goldilocks.optimizers.optimizer import build_optimizer
from goldilocks.regularization.gradient_noise import GradientNoise

TORCH = "torch.optim."
LR = TORCH + "lr_scheduler."


class Factored(MLP):
    """Slow biases and a fast first layer."""

    def lr_factors(self):
        names = [name for name, _ in self.named_parameters()]
        return {**{name: 0.1 for name in names if name.endswith("bias")}, names[0]: 6.0}


class SaveAt(Checkpoint):
    """Keeps a checkpoint of the end of an epoch."""

    def __init__(self, path, epoch):
        self.path, self.epoch = path, epoch

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


def prepared(optimizer, schedule, factored=False, callbacks=()):
    made = make(schedule=schedule, max_epochs=4, callbacks=callbacks)
    made.module.make_optimizer = lambda network, lr: build_optimizer(optimizer, network)
    if factored:
        torch.manual_seed(0)
        made.network = made.module.network = Factored(
            (FEATURES,), 3, depth=2, width=16, output_scale=1.0
        )
    return made


def assert_resumes(tmp_path, *nodes, **options):
    """Trains in one go and from a checkpoint of the second of four epochs."""
    path = tmp_path / "half.ckpt"
    whole, resumed = (
        prepared(*nodes, **options, callbacks=[SaveAt(path, 1)]),
        prepared(*nodes, **options),
    )
    whole.trainer.fit(whole.module, whole.data)
    resumed.trainer.fit(resumed.module, resumed.data, ckpt_path=path, weights_only=True)
    steps = len(resumed.log.rates)
    assert 2 * steps == len(whole.log.rates) > 0
    del whole.log.rates[:steps], whole.history.metrics[:2], whole.history.seen[:2]
    assert_same(whole, resumed)


@pytest.mark.parametrize("name", options("scheduler"))
def test_every_schedule_resumes(name, compose, tmp_path):
    node = compose(f"scheduler={name}").scheduler
    node = {
        **OmegaConf.to_container(node, resolve=True),
        **({"milestones": [1, 3]} if name == "multistep" else {}),
    }
    assert_resumes(tmp_path, {"_target_": TORCH + "SGD", "lr": 0.02, "momentum": 0.9}, node)


@pytest.mark.parametrize("name", options("optimizer"))
def test_every_optimizer_resumes(name, compose, tmp_path):
    node = OmegaConf.to_container(compose(f"optimizer={name}").optimizer)
    pytest.importorskip(node["_target_"].partition(".")[0])
    assert_resumes(
        tmp_path, node, {"_target_": LR + "OneCycleLR", "interval": "step"}, factored=name == "muon"
    )


@pytest.mark.parametrize(
    "schedule",
    [
        {"_target_": LR + "CosineAnnealingLR", "interval": "step", "eta_min": 0.01},
        {"_target_": LR + "OneCycleLR", "interval": "step"},
        {
            "_target_": LR + "ReduceLROnPlateau",
            "monitor": "train/loss",
            "mode": "max",
            "patience": 0,
            "min_lr": 1e-3,
        },
    ],
    ids=lambda node: node["_target_"].rpartition(".")[2],
)
@pytest.mark.parametrize("optimizer", ["NAdam", "SGD"])
def test_factors_of_the_rate_resume(optimizer, schedule, tmp_path):
    node = {"_target_": TORCH + optimizer, "lr": 0.02, "weight_decay": 0.01}
    assert_resumes(tmp_path, node, schedule, factored=True)


LIMITED = {
    "steps": {},
    "accumulation": {"accumulate_grad_batches": 3},
    "single steps": {"steps_per_execution": 1},
    "gradient noise": {"transforms": [GradientNoise(0.3, seed=3)]},
    "ema": {"regularization": {"ema": 0.9}},
    "swa": {"regularization": {"swa": 0.5}, "network": {"norm": "batch"}},
    "schedule": {"schedule": {"_target_": LR + "OneCycleLR", "interval": "step", "max_lr": 0.1}},
    "schedule of epochs": {"schedule": {"_target_": LR + "StepLR", "step_size": 1}},
    "plateau": {
        "schedule": {
            "_target_": LR + "ReduceLROnPlateau",
            "monitor": "train/loss",
            "mode": "max",
            "patience": 0,
        }
    },
    "validation now and then": {"check_val_every_n_epoch": 2},
}


@pytest.mark.parametrize("kind", LIMITED)
def test_a_limit_of_steps_resumes_from_every_epoch(kind, tmp_path):
    """The last of three epochs is cut after two steps."""
    steps_per_epoch = 3 if kind == "accumulation" else 8
    options = {"rows": 82, "max_epochs": 9, "max_steps": 2 * steps_per_epoch + 2, **LIMITED[kind]}
    paths = [tmp_path / f"{epoch}.ckpt" for epoch in range(3)]
    whole = make(**options, callbacks=[SaveAt(path, epoch) for epoch, path in enumerate(paths)])
    whole.trainer.fit(whole.module, whole.data)
    for path in paths[1:]:
        resumed = make(**options)
        resumed.trainer.fit(resumed.module, resumed.data, ckpt_path=path, weights_only=True)
        for seen, again in (
            (whole.log.rates, resumed.log.rates),
            (whole.history.metrics, resumed.history.metrics),
            (whole.history.seen, resumed.history.seen),
        ):
            del seen[: len(seen) - len(again)]
        assert_same(whole, resumed)
    assert not resumed.log.rates  # nothing is left to be done
