"""The one step of the optimizer:
in this order, and the same for a run, a rehearsal and the measurement of threads.
"""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from conftest import SMALL
from fitting import Watcher, fit, make, sgd, vector
from goldilocks.data.loaders import epoch_seed
from goldilocks.regularization.averaging import WeightAverage
from goldilocks.regularization.gradient_noise import GradientNoise
from goldilocks.regularization.gradient_transforms import GradientTransform
from goldilocks.regularization.strengths import Regularization
from goldilocks.runs.run import find_rate
from goldilocks.training.clipping import Gradients
from goldilocks.training.components import prepare
from goldilocks.training.module import seed_generators
from goldilocks.training.rehearsal import Rehearsal, endless
from goldilocks.training.step import OptimizerStep
from goldilocks.training.threads import step_to_measure

CLIP = {"gradient_clip_val": 0.05}
CASES = {
    "plain": ({}, {}),
    "clip by norm": ({}, CLIP),
    "clip by value": ({}, {**CLIP, "gradient_clip_algorithm": "value"}),
    "penalties": ({"l1": 0.01, "l2": 0.1}, {}),
    "limit": ({"max_norm": 0.5}, {}),
    "gradient noise": ({"gradient_noise": 0.1}, {}),
    "augmentation": ({"noise": 0.3, "mixup": 0.4}, {}),
    "label smoothing": ({"label_smoothing": 0.2}, {}),
    "accumulation": ({}, {"accumulate_grad_batches": 2}),
    "bf16": ({}, {"precision": "bf16-mixed"}),
    "all": ({"l1": 0.01, "l2": 0.1, "max_norm": 0.5}, {**CLIP, "accumulate_grad_batches": 2}),
}


class Doubled(GradientTransform):
    """Twice the gradients; keeps the numbers of the steps."""

    def __init__(self):
        self.steps = []

    def __call__(self, parameters, step):
        self.steps.append(step)
        for parameter in parameters:
            parameter.grad *= 2


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "wrapped"])
def test_a_transform_is_told_how_many_steps_were_taken_before(raw, tmp_path):
    """Of the whole run, over its epochs and after it was resumed."""
    watchers = [] if raw else [Watcher()]
    options = {"optimizer": sgd, "callbacks": watchers, "accumulate_grad_batches": 4}
    kept, resumed = Doubled(), Doubled()
    run = fit(**options, transforms=[kept], max_epochs=2)
    assert run.module.raw == raw
    assert kept.steps == list(range(12))
    run.trainer.save_checkpoint(tmp_path / "two.ckpt")
    again = make(**options, transforms=[resumed], max_epochs=3)
    again.trainer.fit(again.module, again.data, ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    assert resumed.steps == list(range(12, 18))


def test_a_step_by_hand():
    """Penalties, transforms, then clipping, then the optimizer, then the limit,
    then the mean; no gradient is left.
    """
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    weight, bias = network.weight.detach().clone(), network.bias.detach().clone()
    average = WeightAverage(network, decay=0.5)
    average.begin(network)
    strengths = Regularization(l1=0.1, l2=0.2, max_norm=0.4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    step = OptimizerStep(
        network,
        optimizer,
        strengths,
        Gradients(0.3, "norm"),
        transforms=[Doubled()],
        average=average,
    )
    x = torch.tensor([[1.0, -2.0, 0.5]])
    step.backward(network(x).sum())
    step.take()

    gradient = 2 * (x.repeat(2, 1) + 0.2 * weight + 0.1 * weight.sign())
    norm = torch.cat([gradient.flatten(), 2 * torch.ones(2)]).norm()
    moved = weight - 0.5 * gradient * 0.3 / (norm + 1e-6)
    moved = moved * (0.4 / moved.norm(dim=1, keepdim=True)).clamp(max=1)
    assert torch.allclose(network.weight, moved, atol=1e-6)
    assert torch.allclose(network.bias, bias - 0.5 * 2 * 0.3 / (norm + 1e-6), atol=1e-6)
    assert torch.allclose(average.network.weight, weight + 0.9 * (moved - weight), atol=1e-6)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "wrapped"])
def test_a_rehearsal_takes_the_steps_of_the_run(case, raw):
    """To the bit: three steps on the same batches from the same seed,
    by itself or in Lightning's wrapper.
    """
    strengths, options = CASES[case]
    eta = strengths.get("gradient_noise")
    strengths = {key: value for key, value in strengths.items() if key != "gradient_noise"}
    options = {**options, "transforms": [GradientNoise(eta, seed=3)] if eta else []}
    made = make(regularization=strengths, max_steps=3, max_epochs=1, optimizer=sgd, **options)
    rehearsal = Rehearsal(made.module, options, torch.device("cpu"))
    watchers = [] if raw else [Watcher()]
    run = fit(
        regularization=strengths,
        max_steps=3,
        max_epochs=1,
        optimizer=sgd,
        callbacks=watchers,
        **options,
    )
    assert run.module.raw == raw
    loader = made.data.loader("train", shuffle_seed=made.module.seed)
    batches = endless(loader)
    seed_generators(epoch_seed(made.module.seed, 0), torch.device("cpu"))
    for _ in range(3):
        rehearsal.take_step(batches)
    assert torch.equal(vector(rehearsal.network), vector(run.network))


@pytest.mark.parametrize("words", ["regularization.l2=10", "trainer.gradient_clip_val=0.001"])
def test_threads_are_measured_on_the_step_of_the_run(words, compose, monkeypatch):
    """What the measured step does to its copy differs with what the run's own step has."""

    def moved(*words):
        parts = prepare(compose(*SMALL, "optimizer=sgd", *words), warn=False)
        kept = []
        monkeypatch.setattr(
            "goldilocks.training.threads.Rehearsal",
            lambda *given: kept.append(Rehearsal(*given)) or kept[-1],
        )
        step_to_measure(parts)()
        return vector(kept[0].network) - vector(parts.module.network)

    assert not torch.allclose(moved(), moved(words))


# --- rates ----------------------------------------------------------------------------------------


def test_a_rate_that_is_found_is_passed_and_no_configuration_is_written_to(compose, tmp_path):
    parts = prepare(compose(*SMALL, "optimizer.lr=auto"), warn=False)
    before = dict(parts.settings.optimizer)
    assert parts.learning_rate is None
    result = {"status": "running", "lr_range": {"rule": "fall", "fall": 0.5, "rate": 0.5}}
    find_rate(parts, tmp_path, result)
    assert result["learning_rate"] == parts.learning_rate == parts.module.found_rate == 0.5
    optimizer = parts.module.make_optimizer(parts.module.network, parts.module.found_rate)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}
    assert parts.settings.optimizer == before


# --- what callbacks see ---------------------------------------------------------------------------


class Reader(pl.Callback):
    """What a callback of one's own finds at the end of each stage."""

    def __init__(self):
        self.found = {}

    def on_train_epoch_end(self, trainer, pl_module):
        self.found["train"] = dict(pl_module.epoch_metrics)

    def on_validation_epoch_end(self, trainer, pl_module):
        self.found["val"] = dict(pl_module.epoch_metrics)

    def on_test_epoch_end(self, trainer, pl_module):
        self.found["test"] = dict(pl_module.epoch_metrics)


def test_a_callback_reads_the_metrics_of_an_epoch_when_it_ends():
    reader = Reader()
    fitted = fit(callbacks=[reader], max_epochs=2)
    complete = fitted.history.metrics[-1]
    assert reader.found["train"] == complete
    assert {"train/loss", "train/accuracy", "gradient_norm", "val/loss"} <= complete.keys()
    assert reader.found["val"].keys() == {key for key in complete if key.startswith("val/")}
    fitted.trainer.test(fitted.module, fitted.data, verbose=False)
    assert "test/loss" in reader.found["test"]
