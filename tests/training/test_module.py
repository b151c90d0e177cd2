"""What the module does over an epoch: schedules, reports, divergence, checkpoints.
Steps: test_module_steps.py.
"""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch.optim import lr_scheduler as library

from fitting import LR, fit, make, sgd, vector
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.training.components import prepare

RATE = 0.1


def options_of(name, interval="epoch", **options):
    return {"_target_": LR + name, "interval": interval, **options}


def rates_by_hand(make_scheduler, interval, steps, epochs=3):
    """The rate of every step of torch's scheduler, driven by hand."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler, rates = make_scheduler(optimizer), []
    for _ in range(epochs):
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if interval == "step":
                scheduler.step()
        if interval == "epoch":
            scheduler.step()
    return rates


# --- schedules ------------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [1, 7, 64])
@pytest.mark.parametrize(("accumulate", "steps"), [(1, 22), (3, 8)])
def test_a_schedule_of_steps_sets_the_rate_of_every_step(accumulate, steps, several):
    fitted = fit(
        optimizer=sgd,
        schedule=options_of("OneCycleLR", "step", pct_start=0.4),
        accumulate_grad_batches=accumulate,
        steps_per_execution=several,
    )
    expected = rates_by_hand(
        lambda o: library.OneCycleLR(o, RATE, total_steps=3 * steps, pct_start=0.4), "step", steps
    )
    assert len(set(expected)) > 20
    assert fitted.log.rates == expected


@pytest.mark.parametrize("several", [1, 7, 64])
def test_a_schedule_of_epochs_is_stepped_once_an_epoch(several):
    fitted = fit(
        optimizer=sgd, schedule=options_of("ExponentialLR", gamma=0.5), steps_per_execution=several
    )
    assert fitted.log.rates == [0.1] * 22 + [0.05] * 22 + [0.025] * 22


def test_a_schedule_over_the_whole_run_ends_where_max_steps_ends_it():
    """30 steps of at most 66: half a cosine over 30, not over the epochs that would have been."""
    fitted = fit(optimizer=sgd, schedule=options_of("CosineAnnealingLR", "step"), max_steps=30)
    expected = [RATE * (1 + math.cos(math.pi * step / 30)) / 2 for step in range(30)]
    assert fitted.log.rates == pytest.approx(expected, rel=1e-6)


def never_better(**options):
    """A plateau on which only the first epoch counts as an improvement."""
    judged = {
        "monitor": "val/loss",
        "mode": "min",
        "patience": 0,
        "threshold": 1e9,
        "threshold_mode": "abs",
    }
    return options_of("ReduceLROnPlateau", factor=0.5, **{**judged, **options})


@pytest.mark.parametrize("monitor", ["val/loss", "train/loss", "val/accuracy"])
def test_a_plateau_halves_the_rate_epoch_by_epoch(monitor):
    mode = "max" if monitor == "val/accuracy" else "min"
    fitted = fit(optimizer=sgd, schedule=never_better(monitor=monitor, mode=mode), max_epochs=4)
    assert fitted.log.rates[::22] == [0.1, 0.1, 0.05, 0.025]


def test_a_plateau_counts_only_epochs_with_validation():
    fitted = fit(optimizer=sgd, schedule=never_better(), max_epochs=7, check_val_every_n_epoch=2)
    assert fitted.log.rates[::22] == [
        0.1,
        0.1,
        0.1,
        0.1,
        0.05,
        0.05,
        0.025,
    ]  # judged after the 2nd, 4th and 6th


def test_a_plateau_follows_the_metric_itself():
    fitted = fit(optimizer=sgd, schedule=never_better(threshold=0.0, patience=1), max_epochs=12)
    rate, best, bad, expected = RATE, math.inf, 0, []
    for metrics in fitted.history.metrics:
        expected.append(rate)
        best, bad = (metrics["val/loss"], 0) if metrics["val/loss"] < best else (best, bad + 1)
        if bad > 1:
            rate, bad = rate / 2, 0
    assert len(set(expected)) > 1  # it became worse at least once
    assert fitted.log.rates[::22] == pytest.approx(expected)


# --- what is reported -----------------------------------------------------------------------------


def test_the_validation_loss_and_accuracy_are_those_of_all_rows():
    fitted = fit(
        limit_val_batches=4
    )  # three batches of 8 and the fourth: a mean over rows, not over batches
    x, y = (tensor[:32] for tensor in fitted.data.tensors["val"])
    fitted.network.eval()
    output = fitted.network(x)
    found = fitted.history.metrics[-1]
    assert found["val/loss"] == pytest.approx(F.cross_entropy(output, y).item(), rel=1e-6)
    assert found["val/accuracy"] == pytest.approx((output.argmax(1) == y).double().mean().item())


def test_a_last_batch_of_fewer_rows_weighs_less():
    fitted = fit(optimizer=lambda groups: sgd(groups, lr=0.0), max_epochs=1, limit_val_batches=1000)
    assert fitted.history.seen == [[8] * 21 + [3]]
    for stage in ("train", "val"):
        x, y = fitted.data.tensors[stage]
        expected = F.cross_entropy(fitted.network(x), y).item()
        assert fitted.history.metrics[0][f"{stage}/loss"] == pytest.approx(expected, rel=1e-6)


def test_penalties_and_smoothing_are_not_part_of_what_is_reported():
    """At a rate of zero. Smoothing changes what is descended, so train/loss too;
    it never changes val/loss.
    """
    still = {"optimizer": lambda groups: sgd(groups, lr=0.0), "max_epochs": 1}
    plain = fit(**still).history.metrics[0]
    penalized = fit(regularization={"l1": 0.1, "l2": 0.1}, **still).history.metrics[0]
    assert penalized.pop("gradient_norm") > plain.pop("gradient_norm")  # they are gradients
    assert penalized == plain
    smooth = fit(regularization={"label_smoothing": 0.3}, **still).history.metrics[0]
    assert smooth["val/loss"] == plain["val/loss"]
    assert smooth["train/loss"] != plain["train/loss"]


def test_an_epoch_without_validation_reports_training_alone():
    stages = [
        {key.partition("/")[0] for key in m}
        for m in fit(check_val_every_n_epoch=2, max_epochs=4).history.metrics
    ]
    assert stages == [{"train", "gradient_norm"}, {"train", "val", "gradient_norm"}] * 2


def test_dropout_is_off_where_it_is_evaluated():
    fitted = fit(network={"dropout": 0.9}, max_epochs=1)
    x, y = fitted.data.tensors["val"]
    fitted.network.eval()
    expected = F.cross_entropy(fitted.network(x), y).item()
    assert fitted.history.metrics[0]["val/loss"] == pytest.approx(expected, rel=1e-6)


def test_predictions_are_in_the_targets_own_units():
    fitted = fit(task="regression", max_epochs=1)
    x, _ = fitted.data.tensors["val"]
    spec = fitted.data.spec
    fitted.module.eval()
    expected = fitted.network(x) * spec.target_scale[0] + spec.target_shift[0]
    torch.testing.assert_close(fitted.module(x), expected)
    probabilities = fit(max_epochs=1).module.eval()(x)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(x)))


def test_the_same_seed_trains_the_same_and_another_does_not():
    one, two, other = fit(), fit(), fit(seed=4)
    assert torch.equal(vector(one.network), vector(two.network))
    assert not torch.equal(vector(one.network), vector(other.network))


# --- divergence -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["callbacks.early_stopping=null"],
        ["callbacks=none"],
        ["scheduler=plateau"],
        ["objective.metric=val/r2"],
    ],
    ids=lambda words: words[0] if words else "default",
)
def test_a_rate_without_sense_ends_the_run_as_diverged(words, compose, tmp_path):
    words = [
        "data=diabetes",
        "optimizer=sgd",
        "optimizer.lr=1e6",
        "trainer=cpu",
        "trainer.max_epochs=30",
        *words,
    ]
    cfg = compose(*words)
    result = run(RunRequest(cfg, tmp_path, words), prepare(cfg))
    assert result["status"] == "diverged"
    assert result["error"] is None
    assert result["epochs"] < 5
    assert not any(key.startswith("test/") for key in result["metrics"])
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "diverged"
    assert not (tmp_path / "traceback.txt").exists()


@pytest.mark.parametrize("several", [1, 64])
def test_divergence_stops_after_the_epoch_in_which_it_shows(several):
    fitted = fit(
        task="regression",
        optimizer=lambda groups: sgd(groups, lr=1e6),
        max_epochs=9,
        steps_per_execution=several,
    )
    assert fitted.module.diverged
    assert fitted.recorder.epochs < 9
    assert not math.isfinite(fitted.history.metrics[-1]["train/loss"])
    assert all(math.isfinite(metrics["train/loss"]) for metrics in fitted.history.metrics[:-1])


def test_a_run_that_converges_has_not_diverged():
    fitted = fit()
    assert not fitted.module.diverged
    assert fitted.recorder.epochs == 3
    assert fitted.history.metrics[-1]["train/loss"] < fitted.history.metrics[0]["train/loss"]


# --- on a GPU -------------------------------------------------------------------------------------


GPU = {"accelerator": "gpu", "network": {"dropout": 0.2, "norm": "batch"}}


@pytest.mark.gpu
def test_the_same_gpu_gives_the_same_weights_twice():
    try:
        one, two = fit(deterministic=True, **GPU), fit(deterministic=True, **GPU)
    finally:
        torch.use_deterministic_algorithms(False)
    assert one.trainer.strategy.root_device.type != "cpu"
    assert torch.equal(vector(one.network), vector(two.network))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_mixed_precision_trains_on_a_gpu(precision):
    fitted = fit(precision=precision, gradient_clip_val=0.5, max_epochs=10, **GPU)
    assert fitted.module.raw == (
        precision == "bf16-mixed"
    )  # a gradient scaler needs Lightning's own path
    assert fitted.history.metrics[-1]["train/loss"] < 0.7 * fitted.history.metrics[0]["train/loss"]
    clipped = torch.stack(fitted.log.gradients).norm(dim=1).cpu()
    assert clipped[clipped.isfinite()].max() == pytest.approx(0.5, rel=1e-3)  # after unscaling


@pytest.mark.gpu
@pytest.mark.parametrize("several", [7, 64])
def test_several_steps_at_once_give_the_same_weights_on_a_gpu(several):
    one, several = fit(steps_per_execution=1, **GPU), fit(steps_per_execution=several, **GPU)
    torch.testing.assert_close(vector(several.network), vector(one.network), rtol=0, atol=1e-6)


# --- checkpoints ----------------------------------------------------------------------------------


def test_a_checkpoint_holds_plain_data_and_the_spec(tmp_path):
    made = make(max_epochs=1)
    made.trainer.fit(made.module, made.data)
    made.trainer.save_checkpoint(tmp_path / "some.ckpt")
    checkpoint = torch.load(tmp_path / "some.ckpt", weights_only=True)
    assert type(made.data.spec).from_plain(checkpoint["spec"]) == made.data.spec
