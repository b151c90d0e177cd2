"""Several steps in one call of `training_step` give what one at a time gives,
and what a bare loop gives.
"""

import itertools
import logging

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fitting import CONSTANT, LR, Watcher, assert_same, fit, make, nadam, sgd, vector
from goldilocks.data.loaders import epoch_seed

ONE_CYCLE = {"_target_": LR + "OneCycleLR", "interval": "step"}
CLIP = {"gradient_clip_val": 0.5}
CASES = {
    "plain": {},
    "dropout": {"network": {"dropout": 0.3}},
    "onecycle": {"schedule": ONE_CYCLE},
    "clip by norm": CLIP,
    "clip by value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    "l1 and l2": {"regularization": {"l1": 1e-3, "l2": 1e-2}},
    "label smoothing": {"regularization": {"label_smoothing": 0.1}},
    "accumulation": {"accumulate_grad_batches": 3},  # the last window has one batch
    "batch norm": {"network": {"norm": "batch"}},
    "bf16": {"precision": "bf16-mixed", "network": {"dropout": 0.3}},
    "regression": {"task": "regression"},
    "max_steps": {"max_steps": 30},
    "max_steps and accumulation": {"max_steps": 11, "accumulate_grad_batches": 3},
    "limit": {"limit_train_batches": 10, "limit_val_batches": 2},
    "no validation": {"check_val_every_n_epoch": 2},
    "everything": {
        **CLIP,
        "network": {"dropout": 0.2},
        "schedule": ONE_CYCLE,
        "regularization": {"l1": 1e-4, "l2": 1e-3, "label_smoothing": 0.1},
        "accumulate_grad_batches": 3,
    },
}
STEPS = {
    "accumulation": 16,
    "everything": 16,
    "max_steps": 30,
    "max_steps and accumulation": 11,
    "limit": 20,
}  # else 44


def short(case, **options):
    """A case's fit of two epochs."""
    return fit(**{"max_epochs": 2, **CASES[case], **options})


@pytest.fixture(scope="module")
def single():
    """A case's fit with one step in a call."""
    fitted = {}

    def of(case):
        if case not in fitted:
            fitted[case] = short(case, steps_per_execution=1)
        return fitted[case]

    return of


@pytest.mark.parametrize(
    ("case", "several"), [*itertools.product(CASES, [2, 7, 16, 64]), ("everything", "auto")]
)
def test_several_steps_at_once_give_the_same_bits(case, several, single):
    reference = single(case)
    found = short(case, steps_per_execution=several)
    assert found.module.raw
    assert reference.trainer.global_step == STEPS.get(case, 44)
    assert reference.log.gradients  # every step was seen
    assert len(found.log.rates) == found.trainer.global_step
    assert_same(found, reference)


@pytest.mark.parametrize("several", [1, 7, 64])
@pytest.mark.parametrize("max_steps", [1, 21, 22, 23])
def test_max_steps_is_exact_and_its_epoch_is_validated(max_steps, several):
    """Also where it ends within a chunk or an epoch:
    the best epoch must be judged as with any other chunk.
    """
    found = fit(steps_per_execution=several, max_steps=max_steps)
    assert found.trainer.global_step == len(found.log.rates) == max_steps
    assert found.recorder.epochs == -(-max_steps // 22)
    assert all("val/loss" in metrics for metrics in found.history.metrics)
    assert sum(map(len, found.history.seen)) == max_steps


# --- against a loop without Lightning -------------------------------------------------------------


def bare_loop(made, case, optimizer, epochs=2):
    """The same training, written by hand in plain PyTorch. Penalties are part of the loss here."""
    network, (x, y) = made.network, made.data.tensors["train"]
    strengths = {"l1": 0.0, "l2": 0.0, "label_smoothing": 0.0, **case.get("regularization", {})}
    clip, by = case.get("gradient_clip_val"), case.get("gradient_clip_algorithm", "norm")
    accumulate, mixed = (
        case.get("accumulate_grad_batches", 1),
        case.get("precision") == "bf16-mixed",
    )
    parameters = list(network.parameters())
    optimizer = optimizer(parameters)
    scheduler = None
    if "schedule" in case:
        steps = epochs * -(-22 // accumulate)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    network.train()
    for epoch in range(epochs):
        torch.manual_seed(epoch_seed(3, epoch))
        generator = torch.Generator().manual_seed(epoch_seed(3, epoch))
        batches = torch.randperm(len(x), generator=generator).split(8)
        for start in range(0, len(batches), accumulate):
            window = batches[start : start + accumulate]
            for rows in window:
                with torch.autocast("cpu", torch.bfloat16, enabled=mixed, cache_enabled=False):
                    loss = F.cross_entropy(
                        network(x[rows]), y[rows], label_smoothing=strengths["label_smoothing"]
                    )
                (loss / len(window)).backward()
            if strengths["l1"] or strengths["l2"]:
                weights = [parameter for parameter in parameters if parameter.ndim == 2]
                penalty = sum(
                    strengths["l1"] * w.abs().sum() + strengths["l2"] / 2 * w.square().sum()
                    for w in weights
                )
                penalty.backward()
            if clip and by == "norm":
                torch.nn.utils.clip_grad_norm_(parameters, clip)
            elif clip:
                torch.nn.utils.clip_grad_value_(parameters, clip)
            optimizer.step()
            optimizer.zero_grad()
            if scheduler is not None:
                scheduler.step()
    return vector(network)


BARE = [
    case
    for case in CASES
    if case not in ("regression", "max_steps", "max_steps and accumulation", "limit")
]


def fused_adamw(parameters):
    return torch.optim.AdamW(parameters, lr=5e-3, weight_decay=0.0, fused=True)


@pytest.mark.parametrize(
    ("case", "optimizer"), [*((case, nadam) for case in BARE), ("everything", fused_adamw)]
)
def test_a_loop_without_lightning_gives_the_same_weights(case, optimizer):
    """To the bit; with penalties to 1e-6, for here they are added to
    the gradients and there to the loss.
    """
    options = CASES[case]
    found = vector(short(case, optimizer=optimizer).network)
    expected = bare_loop(make(**options), options, optimizer)
    start = vector(make(**options).network)
    assert (expected - start).norm() > 0.1  # it was trained
    if "l1" in options.get("regularization", {}):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    else:
        assert torch.equal(found, expected)


# --- the fast path and Lightning's own ------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_the_wrapped_path_gives_the_same_bits(case, single):
    watcher = Watcher()
    wrapped = short(case, callbacks=[watcher])
    assert not wrapped.module.raw
    assert len(watcher.gradients) == STEPS.get(case, 44)
    assert_same(wrapped, single(case))


def test_a_callback_that_watches_single_steps_is_given_them_and_the_log_says_so(caplog):
    caplog.set_level(logging.INFO, logger="goldilocks")
    watcher = Watcher()
    watched = fit(callbacks=[watcher], steps_per_execution=16, max_epochs=1)
    assert watched.trainer.step_watchers() == ["Watcher"]
    assert watched.trainer.batches_per_item == 1
    assert len(watched.trainer.train_dataloader) == 22
    assert "steps_per_execution is 1: Watcher watches single steps" in caplog.messages


def test_an_accumulated_step_is_the_step_of_one_big_batch():
    """By the formula of a mean; 128 rows to train on, so that no batch is smaller."""
    options = {"rows": 170, "optimizer": sgd, "max_epochs": 5}
    small = fit(batch_size=8, accumulate_grad_batches=4, **options)
    big = fit(batch_size=32, **options)
    assert small.data.spec.num_rows["train"] == 128
    assert small.trainer.global_step == big.trainer.global_step == 20
    torch.testing.assert_close(vector(small.network), vector(big.network), rtol=0, atol=1e-6)
    assert (vector(big.network) - vector(make(**options).network)).norm() > 0.1


def test_the_last_window_is_a_mean_over_the_batches_it_has():
    """22 batches in windows of 4: the gradient of the last is that of the
    mean of its two batches, 8 and 3 rows.
    """
    found = make(
        optimizer=lambda groups: sgd(groups, lr=0.0), accumulate_grad_batches=4, max_epochs=1
    )
    found.trainer.fit(found.module, found.data)
    (x, y), generator = found.data.tensors["train"], torch.Generator().manual_seed(epoch_seed(3, 0))
    *_, last, rest = torch.randperm(len(x), generator=generator).split(8)
    assert (len(last), len(rest)) == (8, 3)
    losses = [F.cross_entropy(found.network(x[rows]), y[rows]) for rows in (last, rest)]
    expected = torch.autograd.grad(sum(losses) / 2, list(found.network.parameters()))
    torch.testing.assert_close(
        found.log.gradients[-1],
        torch.cat([gradient.flatten() for gradient in expected]),
        rtol=0,
        atol=1e-7,
    )


def test_epochs_and_seeds_have_randomness_of_their_own():
    """A rate of zero: only dropout and the order of the rows change the loss."""
    still = {
        "optimizer": lambda groups: sgd(groups, lr=0.0),
        "network": {"dropout": 0.5},
        "schedule": CONSTANT,
    }
    losses = [m["train/loss"] for seed in (3, 4) for m in fit(seed=seed, **still).history.metrics]
    assert len(set(losses)) == 6
    assert losses[:3] == [m["train/loss"] for m in fit(**still).history.metrics]


class Waits(TorchDispatchMode):
    """Counts what would make the CPU wait for a GPU:
    numbers read from tensors, and shapes that depend on values.
    """

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.name().split("::")[1] in (
            "_local_scalar_dense",
            "nonzero",
            "masked_select",
            "equal",
            "_unique2",
        ):
            self.found.append(function.name())
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_nothing_within_an_epoch_waits_for_the_device(task):
    """SGD, which keeps no step counts; others keep theirs where torch does not wait for them."""
    waits = Waits()
    options = {
        "regularization": {"l1": 1e-4, "l2": 1e-3},
        "gradient_clip_val": 0.5,
        "schedule": ONE_CYCLE,
    }
    momentum = {"optimizer": lambda groups: sgd(groups, momentum=0.9)}
    made = make(
        task=task,
        steps_per_execution=4,
        max_epochs=2,
        network={"dropout": 0.2},
        **options,
        **momentum,
    )
    step = made.module.training_step

    def watched(*given):
        with waits:
            step(*given)

    made.module.training_step = watched
    made.trainer.fit(made.module, made.data)
    assert made.trainer.global_step == 44
    assert waits.found == []
    with waits:
        torch.ones(3).sum().item()
    assert waits.found == ["aten::_local_scalar_dense"]
