import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fitting import assert_same, fit, make, sgd, vector
from goldilocks.regularization.averaging import WeightAverage
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.training.components import prepare


def walk(network, average, steps=50):
    """Moves a network at random, and its average with it; yields after each step."""
    average.begin(network)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        average.update()
        yield


def test_the_plain_mean_is_torchs():
    network = nn.Linear(3, 2)
    average, reference = WeightAverage(network, None), AveragedModel(network)
    for _ in walk(network, average):
        reference.update_parameters(network)
    assert torch.allclose(vector(average.network), vector(reference.module), atol=1e-6)
    assert int(average.updates) == 50


def test_the_exponential_average_is_torchs_once_it_has_warmed_up():
    network = nn.Linear(3, 2)
    average = WeightAverage(network, 0.5)  # warm after 9 steps
    reference = None
    for step, _ in enumerate(walk(network, average)):
        if step == 10:
            reference = AveragedModel(average.network, multi_avg_fn=get_ema_multi_avg_fn(0.5))
            reference.n_averaged += 1  # else the first update only copies
        elif reference is not None:
            reference.update_parameters(network)
    assert torch.allclose(vector(average.network), vector(reference.module), atol=1e-6)


def test_the_first_steps_weigh_more():
    """After n steps the decay is n / (9 + n): the initial weights are almost gone after a few."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = WeightAverage(network, 0.999)
    average.begin(network)
    nn.init.ones_(network.weight)
    seen = []
    for _ in range(3):
        average.update()
        seen.append(average.network.weight.item())
    assert seen == pytest.approx([1 - 1 / 10, 1 - 1 / 10 * 2 / 11, 1 - 1 / 10 * 2 / 11 * 3 / 12])


def test_the_copy_is_apart_from_the_network_and_is_not_trained():
    network = nn.Linear(2, 2)
    average = WeightAverage(network, 0.9)
    before = vector(average.network)
    with torch.no_grad():
        network.weight.add_(1)
    assert torch.equal(vector(average.network), before)
    assert not any(parameter.requires_grad for parameter in average.network.parameters())


# --- in training ----------------------------------------------------------------------------------


class Steps(pl.Callback):
    """The weights after every optimizer step, through the optimizer's own hook."""

    def __init__(self):
        self.weights = []

    def on_train_start(self, trainer, pl_module):
        self.first = vector(pl_module.network)
        trainer.optimizers[0].register_step_post_hook(
            lambda *_: self.weights.append(vector(pl_module.network))
        )


@pytest.mark.parametrize("several", [1, 64])
def test_the_exponential_average_follows_every_step(several):
    steps = Steps()
    made = fit(regularization={"ema": 0.9}, steps_per_execution=several, callbacks=[steps])
    mean = steps.first
    for count, weights in enumerate(steps.weights, start=1):
        mean = mean.lerp(weights, 1 - min(0.9, count / (9 + count)))
    assert len(steps.weights) == 66
    assert torch.allclose(vector(made.module.average.network), mean, atol=1e-6)
    assert made.module.evaluated is made.module.average.network


def test_the_plain_mean_is_taken_at_the_ends_of_the_last_epochs():
    steps = Steps()
    made = fit(regularization={"swa": 0.5}, max_epochs=6, callbacks=[steps])  # epochs 3, 4, 5
    ends = [steps.weights[22 * epoch - 1] for epoch in (4, 5, 6)]
    assert torch.allclose(vector(made.module.average.network), torch.stack(ends).mean(0), atol=1e-6)


def test_before_the_first_average_the_network_itself_is_evaluated():
    made, plain = fit(regularization={"swa": 0.34}), fit()
    ours, theirs = made.history.metrics, plain.history.metrics
    assert [epoch["train/loss"] for epoch in ours] == [
        epoch["train/loss"] for epoch in theirs
    ]  # training is untouched
    assert ours[0]["val/loss"] == theirs[0]["val/loss"]
    assert ours[2]["val/loss"] != theirs[2]["val/loss"]


def test_batch_norms_statistics_are_those_of_the_mean_weights():
    made = fit(
        regularization={"swa": 0.7}, network={"norm": "batch"}, batch_size=57, optimizer=sgd
    )  # 3 equal batches
    averaged = made.module.average.network
    x, _ = made.data.tensors["train"]
    first = next(layer for layer in averaged if isinstance(layer, nn.BatchNorm1d))
    inputs = averaged[0](x)
    assert torch.allclose(first.running_mean, inputs.mean(0), atol=1e-5)


def test_an_average_is_the_same_however_many_steps_are_in_a_call():
    one, other = (fit(regularization={"ema": 0.9}, steps_per_execution=count) for count in (1, 64))
    assert_same(one, other)
    assert torch.equal(vector(one.module.average.network), vector(other.module.average.network))


class Keep(Checkpoint):
    """Saves a checkpoint at the end of the second epoch."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(
    "strengths", [{"ema": 0.9}, {"swa": 0.7}, {"ema": 0.9, "mixup": 0.4, "cutmix": 1.0}]
)
def test_a_resumed_run_has_the_same_average(strengths, tmp_path):
    options = {"regularization": strengths, "max_epochs": 5, "network": {"norm": "batch"}}
    whole = fit(callbacks=[Keep(tmp_path / "second.ckpt")], **options)
    resumed = make(**options)
    resumed.trainer.fit(
        resumed.module, resumed.data, ckpt_path=tmp_path / "second.ckpt", weights_only=True
    )
    assert int(resumed.module.average.updates) == int(whole.module.average.updates) > 0
    ours, theirs = (made.module.state_dict() for made in (resumed, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_average_is_what_is_tested_and_kept(compose, tmp_path):
    cfg = compose(
        "data=iris",
        "logger=none",
        "regularization=ema",
        "callbacks.progress_bar=null",
        "callbacks.baselines=null",
        "trainer.max_epochs=5",
    )
    parts = prepare(cfg)
    result = run(RunRequest(cfg, tmp_path), parts)
    checkpoint = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    again = prepare(cfg)
    again.module.load_state_dict(checkpoint["state_dict"])
    again.module.eval()
    x, y = again.data.tensors["test"]
    assert again.module(x).argmax(1).eq(y).float().mean().item() == pytest.approx(
        result["metrics"]["test/accuracy"]
    )
    averaged, last = vector(again.module.average.network), vector(again.module.network)
    assert not torch.equal(averaged, last)
    assert again.module.evaluated is again.module.average.network
