"""The losses of conf/loss against their formulas, and losses of other classes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import mean_pinball_loss
from torch import nn

from drawing import draw, make
from goldilocks.errors import Refused
from goldilocks.tasks.losses import NAMES, Focal, loss_in_words, try_loss

OWN = {"_target_": f"{__name__}.Cubed"}


class Cubed(nn.Module):
    """A loss of one's own: nothing but the loss of each row."""

    def forward(self, output, target):
        return (output - target).abs().pow(3).mean(1)


class Total(Cubed):
    """Gives the mean of all rows, which is no loss of each."""

    def forward(self, output, target):
        return super().forward(output, target).mean()


class Weighs(Cubed):
    """Has weights that nobody would train."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))


class Indices(nn.Module):
    """Takes class indices only."""

    def forward(self, output, target):
        return -output.log_softmax(1).gather(1, target[:, None]).squeeze(1)


# --- formulas -------------------------------------------------------------------------------------


def test_log_cosh_is_its_formula_and_does_not_overflow():
    output, target = draw("regression", outputs=2)
    expected = (output - target).double().cosh().log().mean().item()
    task = make("regression", 2, loss="log_cosh")
    assert task.loss(output, target).item() == pytest.approx(expected, rel=1e-5)
    assert task.loss(output + 1e4, output).item() == pytest.approx(1e4 - math.log(2))


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_quantile_is_scikit_learns_pinball_loss_and_its_best_constant_is_the_quantile(q):
    output, target = draw("regression")
    task = make("regression", loss={"_target_": "goldilocks.tasks.losses.Quantile", "q": q})
    assert task.loss(output, target).item() == pytest.approx(
        mean_pinball_loss(target, output, alpha=q), rel=1e-5
    )
    best = task.criterion.constant(target)
    assert best.item() == pytest.approx(np.quantile(target, q), rel=1e-5)


def test_huber_takes_its_delta():
    output, target = draw("regression")
    task = make("regression", loss={"_target_": "goldilocks.tasks.losses.Huber", "delta": 0.3})
    assert task.loss(output, target).item() == pytest.approx(
        F.huber_loss(output, target, delta=0.3).item()
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_focal_is_the_formula_of_its_paper(task, gamma):
    output, target = draw(task)
    p = output.double().sigmoid() if task == "binary" else output.double().softmax(1)
    p = torch.where(target == 1, p, 1 - p)[:, 0] if task == "binary" else p[range(64), target]
    expected = -((1 - p) ** gamma * p.log())
    loss = Focal(gamma)
    assert torch.allclose(loss(output, target).double(), expected, rtol=1e-4)
    module = make(
        task, output.shape[1], loss={"_target_": "goldilocks.tasks.losses.Focal", "gamma": gamma}
    )
    assert module.loss(output, target).item() == pytest.approx(expected.mean().item(), rel=1e-5)
    if gamma == 0:
        plain = make(task, output.shape[1], label_smoothing=0.2).loss(output, target, smooth=True)
        module.label_smoothing = 0.2
        assert module.loss(output, target, smooth=True).item() == pytest.approx(plain.item())


def test_focal_weighs_the_second_of_two_classes_by_alpha():
    output, target = draw("binary")
    weights = torch.where(target == 1, 0.8, 0.2).squeeze(1)
    assert torch.allclose(Focal(2.0, 0.8)(output, target), weights * Focal(2.0)(output, target))
    with pytest.raises(
        Refused, match=r"^loss\.alpha=0\.8: is not for multiclass; write task\.class"
    ):
        make("multiclass", 5, loss={"_target_": "goldilocks.tasks.losses.Focal", "alpha": 0.8})


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_the_slope_of_focal_is_finite_where_a_row_is_certain(gamma):
    for outputs in (1, 3):
        output = torch.full((2, outputs), -300.0)
        output[:, 0] = 300.0
        output.requires_grad_()
        target = torch.tensor([[1.0], [0.0]]) if outputs == 1 else torch.tensor([0, 1])
        Focal(gamma)(output, target).sum().backward()
        assert output.grad.isfinite().all()


@pytest.mark.parametrize("kind", [kind for kind in NAMES if "regression" in kind.tasks])
def test_no_constant_is_better_than_the_best_one(kind):
    _, target = draw("regression", outputs=2)
    loss = kind()
    best = loss(loss.constant(target).expand_as(target), target).mean()
    for shift in (-0.1, 0.1):
        other = loss((loss.constant(target) + shift).expand_as(target), target).mean()
        assert best < other


def test_the_mean_of_the_row_losses_is_the_loss():
    for kind in NAMES:
        task = kind.tasks[-1]
        output, target = draw(task)
        module = make(task, output.shape[1], loss=NAMES[kind])
        assert module.row_losses(output, target).shape == (64,)
        assert module.row_losses(output, target).mean().item() == pytest.approx(
            module.loss(output, target).item(), rel=1e-5
        )


# --- other classes --------------------------------------------------------------------------------


def test_a_loss_of_torch_is_one_option(compose, tmp_path):
    output, target = draw("regression", outputs=2)
    task = make("regression", 2, loss={"_target_": "torch.nn.SmoothL1Loss", "beta": 0.5})
    expected = F.smooth_l1_loss(output, target, beta=0.5)
    assert torch.allclose(task.loss(output, target, smooth=True), expected)
    assert task.row_losses(output, target).shape == (64,)
    output, target = draw("multiclass")
    task = make("multiclass", 5, loss={"_target_": "torch.nn.MultiMarginLoss"})
    assert torch.allclose(task.loss(output, target), F.multi_margin_loss(output, target))


def test_class_weights_and_smoothing_reach_a_loss_of_ones_own():
    output, target = draw("multiclass")
    facts = {"class_counts": np.bincount(target).tolist()}
    options = {"facts": facts, "class_weight": "balanced"}
    own = make("multiclass", 5, loss="focal", **options)
    own.criterion.gamma = 0.0
    usual = make("multiclass", 5, **options)
    assert own.loss(output, target, smooth=True).item() == pytest.approx(
        usual.loss(output, target, smooth=True).item()
    )


@pytest.mark.parametrize(
    ("task", "kind", "soft", "said"),
    [
        ("multiclass", nn.SmoothL1Loss(reduction="none"), False, "write one of: auto, cross_"),
        ("regression", nn.MultiMarginLoss(reduction="none"), False, "write one of: auto, mse, mae"),
        ("regression", nn.ReLU(), False, "cannot take rows of regression"),
        ("regression", nn.MSELoss(), False, "cannot take rows|gives"),
        ("regression", Total(), False, "cannot take rows|gives"),
        ("regression", Weighs(), False, "has weights of its own"),
        ("multiclass", Indices(), True, r"with probabilities \[B, C\]"),
    ],
)
def test_what_is_no_loss_is_refused_in_one_line(task, kind, soft, said):
    from goldilocks.tasks.losses import OfRows

    module = make(task, 5 if task == "multiclass" else 1)
    with pytest.raises(Refused, match=said) as refused:
        try_loss(OfRows(kind), module.spec, "loss._target_=x", probabilities=soft)
    assert "\n" not in str(refused.value)


def test_two_losses_are_the_same_where_auto_is_the_tasks_own():
    path = "goldilocks.tasks.losses"
    assert loss_in_words({"_target_": f"{path}.Auto"}, "regression") == "mse"
    assert loss_in_words({"_target_": f"{path}.MSE"}, "regression") == "mse"


# --- a run ----------------------------------------------------------------------------------------


def test_a_run_with_a_loss_and_a_metric_that_are_only_yaml(command, tmp_path, monkeypatch):
    """Trained, followed, diagnosed and predicted: one class and two files, beside conf/."""
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\nclass Cubed(nn.Module):\n"
        "    def forward(self, output, target):\n"
        "        return (output - target).abs().pow(3).mean(1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for group, name, lines in (
        ("loss", "cubed", ["# Cubed error", "_target_: mine.Cubed"]),
        (
            "metrics",
            "corr",
            ["# Pearson's", "corr:", "  _target_: torchmetrics.PearsonCorrCoef", "  mode: max"],
        ),
    ):
        (tmp_path / "options" / group).mkdir(parents=True)
        (tmp_path / "options" / group / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    ended = command(
        *("loss=cubed", "metrics=[corr,rmse]", "objective.metric=val/corr", "data=diabetes"),
        *("packages=[mine]", "trainer=cpu", "trainer.max_epochs=2", "callbacks=none"),
        *("logger=none", "--config-dir", "options"),
    )
    assert ended.code == 0, ended.err
    from conftest import read_result

    result = read_result(ended.folder)
    assert result["objective"]["mode"] == "max"
    assert set(result["metrics"]) == {
        *("train/loss", "train/corr"),
        *(f"{stage}/{name}" for stage in ("val", "test") for name in ("loss", "corr", "rmse")),
    }
    assert result["choices"]["loss"] == "cubed"
    assert result["choices"]["metrics"] == ["corr", "rmse"]
    assert "chance level" in result["diagnosis"]["summary"]
