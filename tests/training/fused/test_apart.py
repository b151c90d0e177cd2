"""What happens to one run of several that train together touches no other."""

import math
import statistics
from dataclasses import replace

import pytest
import torch
from together import checkpoint, one_by_one, request_of, together

from goldilocks.errors import Refused
from goldilocks.models.mlp import MLP
from goldilocks.runs.run import run
from goldilocks.training.fused.steps import StepsTogether
from goldilocks.training.fused.turns import Ended, Partner, answer_all

SEEDS = [["seed=0"], ["seed=1"], ["seed=2"]]


def test_a_run_that_diverges_changes_no_other_by_a_bit(tmp_path):
    wild = [["optimizer=sgd", "optimizer.lr=0.1"], ["optimizer=sgd", "optimizer.lr=1e20", "seed=1"]]
    calm = [wild[0], ["optimizer=sgd", "optimizer.lr=0.05", "seed=1"]]
    found = together(tmp_path / "wild", wild)
    together(tmp_path / "calm", calm)
    assert [result["status"] for result in found] == ["done", "diverged"]
    one, other = (checkpoint(tmp_path / how, 0)["state_dict"] for how in ("wild", "calm"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_that_stops_early_leaves_the_others(tmp_path):
    trials = [
        [*seed, f"trainer.max_epochs={epochs}"]
        for seed, epochs in zip(SEEDS, (2, 9, 4), strict=True)
    ]
    steps = StepsTogether()
    found = together(tmp_path / "together", trials, steps)
    alone = one_by_one(tmp_path / "alone", trials)
    assert [result["epochs"] for result in found] == [2, 9, 4]
    assert len(steps.stacks) == 1
    assert len(steps.stacks[0].modules) == 1  # without those that have left
    for one, other in zip(alone, found, strict=True):
        assert other["metrics"] == pytest.approx(one["metrics"], rel=1e-3, abs=1e-5)


def test_checkpoints_hold_what_those_of_a_run_alone_hold(tmp_path):
    trials = [["scheduler=onecycle"], ["scheduler=onecycle", "seed=1"]]
    one_by_one(tmp_path / "alone", trials)
    together(tmp_path / "together", trials)
    for name in ("last", "best"):
        one, other = (checkpoint(tmp_path / how, 1, name) for how in ("alone", "together"))
        assert other.keys() == one.keys()
        assert other["loops"] == one["loops"]
        assert (other["epoch"], other["global_step"]) == (one["epoch"], one["global_step"])
    states = [checkpoint(tmp_path / how, 1) for how in ("alone", "together")]
    one, other = (state["optimizer_states"][0] for state in states)
    assert [group["params"] for group in other["param_groups"]] == [
        group["params"] for group in one["param_groups"]
    ]
    for key, state in one["state"].items():
        assert other["state"][key].keys() == state.keys()
        for name, value in state.items():
            torch.testing.assert_close(other["state"][key][name], value, rtol=1e-3, atol=1e-6)


def test_a_checkpoint_holds_one_run_only(tmp_path):
    together(tmp_path, [[f"seed={seed}", "model.width=64"] for seed in range(8)])
    sizes = [
        (tmp_path / str(n) / "checkpoints" / f"{name}.ckpt").stat().st_size
        for n in range(8)
        for name in ("last", "best")
    ]
    assert max(sizes) < 60_000


@pytest.mark.parametrize("how", ["together", "alone"])
def test_an_interrupted_run_goes_on_from_its_checkpoint(tmp_path, how):
    trials = [["trainer.max_epochs=8"], ["trainer.max_epochs=8", "seed=1", "optimizer.lr=0.01"]]
    quick = ["callbacks.last_checkpoint.min_seconds=0"]
    whole = together(tmp_path / "whole", [[*trial, *quick] for trial in trials])
    folder = tmp_path / "parts"
    reports = []

    def stop(epoch, value):
        reports.append(epoch)
        if len(reports) == 7:
            raise Ended
        return False

    first = together(folder, [[*trial, *quick] for trial in trials], report=stop)
    assert "interrupted" in [result["status"] for result in first]
    more = {"resumed": True, "report": lambda *_: False}
    again = [request_of(folder / str(n), [*t, *quick], **more) for n, t in enumerate(trials)]
    if how == "alone":
        found = [run(request) for request in again]
    else:
        ended = {}
        partners = [
            Partner(lambda partner, n=n: ended.update({n: run(replace(again[n], partner=partner))}))
            for n in range(2)
        ]
        answer_all(partners, StepsTogether())
        assert not any(partner.error for partner in partners)
        found = [ended[n] for n in range(2)]
    for n, (one, other) in enumerate(zip(whole, found, strict=True)):
        assert other["status"] == "done", other["error"]
        assert other["epochs"] == one["epochs"]
        assert other["metrics"] == pytest.approx(one["metrics"], rel=1e-3, abs=1e-5)
        old, new = (checkpoint(tmp_path / how, n)["state_dict"] for how in ("whole", "parts"))
        for key in old:
            torch.testing.assert_close(new[key], old[key], rtol=1e-3, atol=1e-5)


def test_dropout_is_drawn_for_each_run_by_itself(tmp_path):
    """Mean and spread over many seeds are those of runs alone."""
    extra = ["regularization=dropout", "regularization.dropout=0.5", "trainer.max_epochs=6"]
    trials = [[*extra, f"seed={seed}"] for seed in range(24)]
    alone = [result["metrics"]["val/loss"] for result in one_by_one(tmp_path / "alone", trials)]
    both = [result["metrics"]["val/loss"] for result in together(tmp_path / "together", trials)]
    spread = statistics.stdev(alone)
    error = spread * math.sqrt(2 / len(trials))
    assert statistics.fmean(both) == pytest.approx(statistics.fmean(alone), abs=3 * error)
    assert 0.5 < statistics.stdev(both) / spread < 2
    assert len(set(both)) == len(both)


@pytest.mark.parametrize(
    "strength",
    [
        "mixup",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("noise", "cutout", "cutmix")),
    ],
)
def test_augmented_batches_train_as_alone(tmp_path, strength):
    trials = [
        [f"regularization={strength}", f"regularization.{strength}=0.3", f"seed={seed}"]
        for seed in range(12)
    ] + [["seed=0"]]
    alone = [result["metrics"]["val/loss"] for result in one_by_one(tmp_path / "alone", trials)]
    both = [result["metrics"]["val/loss"] for result in together(tmp_path / "together", trials)]
    error = statistics.stdev(alone[:-1]) * math.sqrt(2 / 12)
    means = statistics.fmean(both[:-1]), statistics.fmean(alone[:-1])
    assert means[0] == pytest.approx(means[1], abs=3 * error)
    assert both[-1] == pytest.approx(alone[-1], rel=1e-4)  # which has none of it


def test_networks_that_cannot_be_stacked_train_alone(tmp_path, capsys, monkeypatch):
    plain = MLP.forward

    def depends_on_the_rows(self, x):
        return plain(self, x if x.sum() > -1e9 else -x)

    monkeypatch.setattr(MLP, "forward", depends_on_the_rows)
    alone = one_by_one(tmp_path / "alone", SEEDS)
    both = together(tmp_path / "together", SEEDS)
    for one, other in zip(both, alone, strict=True):
        assert one["metrics"] == pytest.approx(other["metrics"], rel=1e-6)
    assert capsys.readouterr().err.count("MLP: cannot be stacked, each is trained alone") == 1


def test_a_refused_run_ends_alone(tmp_path):
    def work(partner: Partner) -> None:
        raise Refused("no")

    partners = [Partner(work)]
    answer_all(partners, StepsTogether())
    assert isinstance(partners[0].error, Refused)
