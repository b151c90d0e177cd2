import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as reference
from sklearn.linear_model._huber import _huber_loss_and_gradient

from drawing import draw, make, score
from goldilocks.config.metric_directions import BETTER, direction
from goldilocks.errors import Refused
from goldilocks.tasks.losses import AUTO, NAMES, smooth_binary
from goldilocks.tasks.objective import Objective, check_objective


def huber(error):
    return torch.where(error < 1, error**2 / 2, error - 0.5)


# --- losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "loss", "formula"),
    [
        ("regression", "mse", lambda o, t: ((o - t) ** 2).mean()),
        ("regression", "auto", lambda o, t: ((o - t) ** 2).mean()),
        ("regression", "mae", lambda o, t: (o - t).abs().mean()),
        ("regression", "huber", lambda o, t: huber((o - t).abs()).mean()),
        (
            "binary",
            "bce",
            lambda o, t: -(t * o.sigmoid().log() + (1 - t) * (1 - o.sigmoid()).log()).mean(),
        ),
        (
            "binary",
            "auto",
            lambda o, t: -(t * o.sigmoid().log() + (1 - t) * (1 - o.sigmoid()).log()).mean(),
        ),
        (
            "multiclass",
            "cross_entropy",
            lambda o, t: -o.softmax(1).log()[torch.arange(len(t)), t].mean(),
        ),
        ("multiclass", "auto", lambda o, t: -o.softmax(1).log()[torch.arange(len(t)), t].mean()),
    ],
)
def test_losses_are_their_formulas(task, loss, formula):
    output, target = draw(task)
    found = make(task, output.shape[1], loss=loss).loss(output, target)
    assert found.shape == ()
    assert torch.allclose(found, formula(output, target), rtol=1e-5)


def test_huber_is_that_of_scikit_learns_regressor():
    """HuberRegressor minimises n * sigma + sum sigma * H(r / sigma),
    where H is twice the usual loss; sigma is 1.
    """
    output, target = draw("regression")
    parameters = np.array([1.0, 0.0, 1.0])  # weight, intercept, sigma
    x, y = output.double().numpy(), target.double().squeeze(1).numpy()
    total, _ = _huber_loss_and_gradient(
        parameters, x, y, epsilon=1.0, alpha=0.0, sample_weight=np.ones(len(y))
    )
    found = make("regression", loss="huber").loss(output, target)
    assert found.item() == pytest.approx((total - len(y)) / 2 / len(y), rel=1e-5)


@pytest.mark.parametrize("task", AUTO)
def test_a_loss_of_another_task_is_refused(task):
    for name in [name for kind, name in NAMES.items() if task not in kind.tasks]:
        with pytest.raises(Refused, match=f"^loss={name}: is not for {task}; write one of: auto, "):
            make(task, loss=name)


@pytest.mark.parametrize("amount", [0.1, 0.5])
def test_label_smoothing_of_classes_spreads_its_share_over_all(amount):
    output, target = draw("multiclass")
    soft = F.one_hot(target, 5) * (1 - amount) + amount / 5
    expected = -(soft * output.log_softmax(1)).sum(1).mean()
    task = make("multiclass", 5, label_smoothing=amount)
    assert torch.allclose(task.loss(output, target, smooth=True), expected, rtol=1e-5)
    assert torch.equal(task.loss(output, target), F.cross_entropy(output, target))


@pytest.mark.parametrize("amount", [0.1, 0.5])
def test_label_smoothing_of_a_binary_target_moves_it_towards_a_half(amount):
    output, target = draw("binary")
    p, soft = output.sigmoid(), torch.where(target == 1, 1 - amount / 2, amount / 2)
    expected = -(soft * p.log() + (1 - soft) * (1 - p).log()).mean()
    task = make("binary", label_smoothing=amount)
    assert torch.allclose(task.loss(output, target, smooth=True), expected, rtol=1e-5)
    assert torch.equal(
        task.loss(output, target), F.binary_cross_entropy_with_logits(output, target)
    )


def test_binary_smoothing_equals_that_of_two_classes():
    """A binary output z is the two classes' logits (0, z)."""
    output, target = draw("binary")
    two = torch.cat([torch.zeros_like(output), output], 1)
    expected = F.cross_entropy(two, target.long().squeeze(1), label_smoothing=0.2)
    assert torch.allclose(
        make("binary", label_smoothing=0.2).loss(output, target, smooth=True), expected, rtol=1e-5
    )
    assert torch.equal(smooth_binary(target, 0.0), target)


def test_label_smoothing_of_a_regression_is_refused():
    with pytest.raises(Refused, match=r"^regularization.label_smoothing=0.1: .*regression"):
        make("regression", label_smoothing=0.1)


# --- predictions ----------------------------------------------------------------------------------


def test_predictions_are_probabilities_or_the_targets_own_units():
    output, _ = draw("multiclass")
    found = make("multiclass", 5).predict(output)
    assert torch.allclose(found, output.exp() / output.exp().sum(1, keepdim=True))
    output, _ = draw("binary")
    assert torch.allclose(make("binary").predict(output), 1 / (1 + (-output).exp()))
    output, _ = draw("regression", outputs=2)
    found = make("regression", 2, shift=(100.0, -3.0), scale=(20.0, 0.5)).predict(output)
    assert torch.allclose(found, torch.stack([output[:, 0] * 20 + 100, output[:, 1] / 2 - 3], 1))


# --- metrics against scikit-learn -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_multiclass_metrics_equal_scikit_learns(seed):
    output, target = draw("multiclass", seed=seed)
    chosen = output.argmax(1)
    assert score(make("multiclass", 5), output, target) == pytest.approx(
        {
            "val/accuracy": reference.accuracy_score(target, chosen),
            "val/balanced_accuracy": reference.balanced_accuracy_score(target, chosen),
            "val/auroc": reference.roc_auc_score(target, output.softmax(1), multi_class="ovr"),
            "val/f1": reference.f1_score(target, chosen, average="macro"),
            "val/ece": binned_error(*output.softmax(1).max(1), target),
        },
        rel=1e-5,
    )


def binned_error(sure, said, target):
    """The expected calibration error by its definition, over 15 bins."""
    bins = np.minimum((sure.double().numpy() * 15).astype(int), 14)
    right = (said == target).numpy()
    gaps = [
        (bins == b).mean() * abs(right[bins == b].mean() - sure.numpy()[bins == b].mean())
        for b in set(bins)
    ]
    return sum(gaps)


def test_metrics_of_many_classes_are_of_those_that_have_rows():
    """A class without rows has no recall and no curve; one that is never right counts as zero."""
    output, target = draw("multiclass")
    target = target.clamp(max=2)
    found, shares = score(make("multiclass", 5), output, target), output.softmax(1)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert found["val/balanced_accuracy"] == pytest.approx(
            reference.balanced_accuracy_score(target, output.argmax(1))
        )
    areas = [reference.roc_auc_score(target == index, shares[:, index]) for index in range(3)]
    assert found["val/auroc"] == pytest.approx(np.mean(areas), rel=1e-5)
    assert found["val/f1"] == pytest.approx(
        reference.f1_score(target, output.argmax(1), average="macro")
    )


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_auroc_of_ties_is_that_of_scikit_learn(task):
    """Sure networks give many rows a probability of exactly one or zero."""
    output, target = draw(task)
    coarse = (output * 2).round() * 40
    shares = coarse.sigmoid().squeeze(1) if task == "binary" else coarse.softmax(1)
    assert len(shares.unique()) < len(shares) / 2
    expected = reference.roc_auc_score(target.squeeze(-1), shares, multi_class="ovr")
    assert score(make(task, output.shape[1]), coarse, target)["val/auroc"] == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_auroc_of_a_single_class_is_not_a_number(task):
    output, target = draw(task)
    found = score(make(task, output.shape[1]), output, target * 0)
    assert math.isnan(found["val/auroc"])
    assert math.isfinite(found["val/balanced_accuracy"])


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_metrics_bear_outputs_that_are_no_numbers(task):
    output, target = draw(task)
    assert score(make(task, output.shape[1]), output * math.nan, target).keys() >= {
        "val/auroc",
        "val/ece",
    }


@pytest.mark.parametrize("seed", range(3))
def test_binary_metrics_equal_scikit_learns(seed):
    output, target = draw("binary", seed=seed)
    truth, chosen = target.squeeze(1), output.squeeze(1) > 0
    assert score(make("binary"), output, target) == pytest.approx(
        {
            "val/accuracy": reference.accuracy_score(truth, chosen),
            "val/balanced_accuracy": reference.balanced_accuracy_score(truth, chosen),
            "val/auroc": reference.roc_auc_score(truth, output.squeeze(1)),
            "val/f1": reference.f1_score(truth, chosen),
            "val/ece": binned_error(output.sigmoid().squeeze(1), torch.ones(len(truth)), truth),
        },
        rel=1e-5,
    )


@pytest.mark.parametrize(
    ("shift", "scale"),
    [
        ((0.0,), (1.0,)),
        ((152.0,), (77.0,)),
        (
            (1e4,),
            (2.0,),
        ),  # far from zero, where single precision leaves little of the squares' difference
        ((100.0, -3.0, 0.0), (20.0, 0.1, 1.0)),
    ],
)
def test_regression_metrics_are_in_the_targets_units_and_equal_scikit_learns(shift, scale):
    output, target = draw("regression", outputs=len(shift))
    said, truth = (
        values.double().numpy() * np.array(scale) + np.array(shift) for values in (output, target)
    )
    found = score(make("regression", len(shift), shift, scale), output, target)
    assert found == pytest.approx(
        {
            "val/rmse": math.sqrt(reference.mean_squared_error(truth, said)),
            "val/mae": reference.mean_absolute_error(truth, said),
            "val/r2": reference.r2_score(truth, said),
        },
        rel=2e-3,
    )


def test_r2_of_an_unscaled_target_far_from_zero_is_that_of_scikit_learn():
    output, target = (values * 2 + 1e4 for values in draw("regression"))
    task = make("regression", facts={"target_centre": (1e4 + 0.3,)})
    assert score(task, output, target)["val/r2"] == pytest.approx(
        reference.r2_score(target.numpy(), output.numpy()), rel=1e-4
    )


def test_a_stage_of_a_single_row_has_its_errors():
    """R2 needs two rows; that must not end a run whose validation set has one."""
    task = make("regression", shift=(10.0,), scale=(2.0,))
    task.update_metrics("val", torch.tensor([[1.0]]), torch.tensor([[0.5]]))
    found = task.compute_metrics("val")
    assert found["val/rmse"] == pytest.approx(1.0)
    assert found["val/mae"] == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_metrics_of_half_precision_outputs_are_computed_in_single(dtype):
    output, target = draw("regression")
    coarse = output.to(dtype)
    expected = score(make("regression", shift=(152.0,), scale=(77.0,)), coarse.float(), target)
    assert score(make("regression", shift=(152.0,), scale=(77.0,)), coarse, target) == expected


@pytest.mark.parametrize("task", AUTO)
def test_metrics_start_anew_and_stages_are_apart(task):
    output, target = draw(task)
    module = make(task, output.shape[1])
    first = score(module, output, target)
    module.update_metrics("val", *draw(task, seed=5))
    module.update_metrics("test", *draw(task, seed=6))
    assert module.compute_metrics("val") != first
    assert score(module, output, target) == first
    module.update_metrics("val", *draw(task, seed=7))
    module.reset_metrics("val")
    assert score(module, output, target) == first


@pytest.mark.parametrize("task", AUTO)
def test_training_has_the_first_metric_only(task):
    output, target = draw(task)
    module = make(task, output.shape[1])
    names = module.names()
    assert set(score(module, output, target, "train")) == {f"train/{names[0]}"}
    assert set(score(module, output, target, "test")) == {f"test/{name}" for name in names}
    assert module.names("train") == names[:1]


def test_metrics_keep_no_gradients():
    output, target = draw("binary")
    task = make("binary")
    task.update_metrics("val", output.requires_grad_(), target)
    assert not any(
        value.requires_grad for pair in task.metrics["val"]["auroc"].parts for value in pair
    )


# --- the objective --------------------------------------------------------------------------------


def test_every_metric_has_a_direction():
    names = {name for task in AUTO for name in make(task, 3 if task == "multiclass" else 1).names()}
    assert names == BETTER.keys()
    for name in [*names, "loss"]:
        errors = name in ("loss", "rmse", "mae", "ece")
        assert direction(f"val/{name}", {"auto": True}) == ("min" if errors else "max")


@pytest.mark.parametrize(
    ("metric", "mode", "said"),
    [
        ("test/loss", "min", "objective.metric=test/loss: the test set must not decide"),
        ("val/acuracy", "max", "did you mean val/accuracy?"),
        ("loss", "min", "objective.metric=loss: no such metric"),
        ("val/accuracy", "min", "objective.mode=min: max is better for accuracy"),
        ("val/loss", "max", "objective.mode=max: min is better for loss"),
    ],
)
def test_an_objective_that_cannot_decide_is_refused(metric, mode, said):
    with pytest.raises(Refused, match=said):
        Objective(metric, mode)


def test_better_follows_the_mode_and_a_tie_goes_to_the_later():
    less, more = Objective("val/loss", "min"), Objective("val/accuracy", "max")
    assert less.better(5.0, None)
    assert less.better(0.1, 0.2)
    assert not less.better(0.3, 0.2)
    assert more.better(0.3, 0.2)
    assert not more.better(0.1, 0.2)
    assert less.better(0.2, 0.2)
    assert more.better(0.2, 0.2)


def test_an_objective_that_the_data_do_not_have_is_refused():
    task = make("regression")
    check_objective("val/rmse", task)
    check_objective("train/loss", task)
    for metric in ("val/accuracy", "train/r2"):
        with pytest.raises(
            Refused, match=f"^objective.metric={metric}: regression has no such metric; .*val/rmse"
        ):
            check_objective(metric, task)
    without = make("regression", facts={"num_rows": {"train": 9, "val": 0, "test": 1}})
    with pytest.raises(Refused, match=r"data.val_fraction=0 leaves no validation set"):
        check_objective("val/loss", without)
    check_objective("train/loss", without)
