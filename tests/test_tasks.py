import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as reference
from sklearn.linear_model._huber import _huber_loss_and_gradient
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from goldilocks.data.spec import Spec
from goldilocks.errors import Refused
from goldilocks.metric_names import BETTER, direction
from goldilocks.tasks import LOSSES, METRICS, OUTPUTS, Objective, Task, check_objective, metric_names, smooth_binary

ROWS = {"train": 6, "val": 2, "test": 2}


def make(task, outputs=1, shift=(0.0,), scale=(1.0,), facts=None, **options):
    facts = facts or {}
    if task == "regression":
        facts = {"target_shift": shift, "target_scale": scale, "target_range": (0.0, 1.0), **facts}
    return Task(Spec(task, (4,), outputs, num_rows=ROWS, **facts), **options)


def draw(task, rows=64, outputs=None, seed=0):
    """Raw outputs and targets of a task."""
    torch.manual_seed(seed)
    outputs = outputs or {"regression": 1, "binary": 1, "multiclass": 5}[task]
    output = torch.randn(rows, outputs)
    if task == "multiclass":
        return output, torch.randint(outputs, (rows,))
    return output, torch.randint(2, (rows, 1)).float() if task == "binary" else output + torch.randn(rows, outputs)


def score(task, output, target, stage="val"):
    """The metrics of a stage that came in two unequal pieces."""
    task.reset_metrics(stage)
    task.update_metrics(stage, output[:50], target[:50])
    task.update_metrics(stage, output[50:], target[50:])
    return task.compute_metrics(stage)


def huber(error):
    return torch.where(error < 1, error**2 / 2, error - 0.5)


# --- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "loss", "formula"),
    [
        ("regression", "mse", lambda o, t: ((o - t) ** 2).mean()),
        ("regression", "auto", lambda o, t: ((o - t) ** 2).mean()),
        ("regression", "mae", lambda o, t: (o - t).abs().mean()),
        ("regression", "huber", lambda o, t: huber((o - t).abs()).mean()),
        ("binary", "bce", lambda o, t: -(t * o.sigmoid().log() + (1 - t) * (1 - o.sigmoid()).log()).mean()),
        ("binary", "auto", lambda o, t: -(t * o.sigmoid().log() + (1 - t) * (1 - o.sigmoid()).log()).mean()),
        ("multiclass", "cross_entropy", lambda o, t: -o.softmax(1).log()[torch.arange(len(t)), t].mean()),
        ("multiclass", "auto", lambda o, t: -o.softmax(1).log()[torch.arange(len(t)), t].mean()),
    ],
)
def test_losses_are_their_formulas(task, loss, formula):
    output, target = draw(task)
    found = make(task, output.shape[1], loss=loss).loss(output, target)
    assert found.shape == ()
    assert torch.allclose(found, formula(output, target), rtol=1e-5)


def test_huber_is_that_of_scikit_learns_regressor():
    """HuberRegressor minimises n * sigma + sum sigma * H(r / sigma), where H is twice the usual loss; sigma is 1."""
    output, target = draw("regression")
    parameters = np.array([1.0, 0.0, 1.0])  # weight, intercept, sigma
    x, y = output.double().numpy(), target.double().squeeze(1).numpy()
    total, _ = _huber_loss_and_gradient(parameters, x, y, epsilon=1.0, alpha=0.0, sample_weight=np.ones(len(y)))
    found = make("regression", loss="huber").loss(output, target)
    assert found.item() == pytest.approx((total - len(y)) / 2 / len(y), rel=1e-5)


@pytest.mark.parametrize("task", LOSSES)
def test_a_loss_of_another_task_is_refused(task):
    others = {name for losses in LOSSES.values() for name in losses} - LOSSES[task].keys()
    for name in others:
        with pytest.raises(Refused, match=f"^task.loss={name}: is not for {task}; write one of: auto, "):
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
    assert torch.equal(task.loss(output, target), F.binary_cross_entropy_with_logits(output, target))


def test_binary_smoothing_equals_that_of_two_classes():
    """A binary output z is the two classes' logits (0, z)."""
    output, target = draw("binary")
    two = torch.cat([torch.zeros_like(output), output], 1)
    expected = F.cross_entropy(two, target.long().squeeze(1), label_smoothing=0.2)
    assert torch.allclose(make("binary", label_smoothing=0.2).loss(output, target, smooth=True), expected, rtol=1e-5)
    assert torch.equal(smooth_binary(target, 0.0), target)


def test_label_smoothing_of_a_regression_is_refused():
    with pytest.raises(Refused, match=r"^regularization.label_smoothing=0.1: .*regression"):
        make("regression", label_smoothing=0.1)


# --- soft targets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("amount", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_class_probabilities_as_targets(weighted, amount, dtype):
    """As a batch's rows are mixed: cross-entropy with the mixed, then smoothed probabilities."""
    output, target = draw("multiclass")
    mixed = 0.3 * F.one_hot(target, 5) + 0.7 * F.one_hot(target.flip(0), 5)
    counts = (10, 20, 30, 5, 35)
    weights = torch.tensor(compute_class_weight("balanced", classes=np.arange(5), y=np.repeat(np.arange(5), counts)))
    task = make(
        *("multiclass", 5),
        facts={"class_counts": counts},
        class_weight="balanced" if weighted else "none",
        label_smoothing=amount,
    )
    soft = (mixed * (1 - amount) + amount / 5) * (weights if weighted else 1)
    output = output.to(dtype)
    expected = -(soft * output.double().log_softmax(1)).sum(1).mean()
    assert task.loss(output, mixed, smooth=True).item() == pytest.approx(
        expected.item(), rel=1e-5 if dtype == torch.float32 else 2e-2
    )


def test_one_class_for_certain_is_the_same_as_its_index():
    output, target = draw("multiclass")
    certain = F.one_hot(target, 5).float()
    for options in ({}, {"label_smoothing": 0.1}, {"class_weight": "balanced"}):
        task = make("multiclass", 5, facts={"class_counts": (10, 20, 30, 5, 35)}, **options)
        assert torch.allclose(task.loss(output, certain, smooth=True), task.loss(output, target, smooth=True))
        assert score(task, output, certain) == score(task, output, target)


def test_binary_targets_between_the_classes():
    output, target = draw("binary")
    mixed = 0.3 * target + 0.7 * target.flip(0)
    p = output.double().sigmoid()
    expected = -(mixed * p.log() + (1 - mixed) * (1 - p).log()).mean()
    task = make("binary")
    assert task.loss(output, mixed, smooth=True).item() == pytest.approx(expected.item())
    assert score(task, output, mixed) == score(task, output, (mixed > 0.5).float())


# --- class weights ----------------------------------------------------------------------------------------------------


def test_balanced_classes_weigh_as_in_scikit_learn():
    output, target = draw("multiclass")
    task = make("multiclass", 5, facts={"class_counts": np.bincount(target).tolist()}, class_weight="balanced")
    expected = compute_class_weight("balanced", classes=np.arange(5), y=target.numpy())
    assert task.class_weight.tolist() == pytest.approx(expected.tolist())
    weights = compute_sample_weight("balanced", target.numpy())
    said = reference.log_loss(target, output.double().softmax(1), sample_weight=weights)
    assert task.loss(output, target, smooth=True).item() == pytest.approx(said)
    assert torch.equal(task.loss(output, target), F.cross_entropy(output, target))


def test_balanced_binary_weighs_as_in_scikit_learn():
    output, _ = draw("binary")
    target = (torch.arange(64) % 8 == 0).float()[:, None]
    task = make("binary", facts={"class_counts": (56, 8)}, class_weight="balanced")
    weights = compute_sample_weight("balanced", target.squeeze(1).numpy())
    said = reference.log_loss(target, output.double().sigmoid(), sample_weight=weights)
    assert task.loss(output, target, smooth=True).item() == pytest.approx(said)
    assert torch.equal(task.loss(output, target), F.binary_cross_entropy_with_logits(output, target))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_weights_hold_in_a_batch_of_one_class(task):
    """They weigh the rows against those of all batches, so they are not divided by the batch's own sum."""
    output, target = draw(task)
    counts = {"binary": (90, 10), "multiclass": (90, 10, 25, 25, 50)}[task]
    module = make(task, output.shape[1])
    weighted = make(task, output.shape[1], facts={"class_counts": counts}, class_weight="balanced")
    for index, count in enumerate(counts):
        rows = target.reshape(-1) == index
        plain = module.loss(output[rows], target[rows], smooth=True)
        factor = sum(counts) / len(counts) / count
        assert weighted.loss(output[rows], target[rows], smooth=True) == pytest.approx((plain * factor).item())


def test_class_weights_of_a_regression_are_refused():
    with pytest.raises(Refused, match=r"^task.class_weight=balanced: .*regression; leave it out$"):
        make("regression", class_weight="balanced")


# --- output functions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "formula"),
    [
        ("identity", lambda raw: raw),
        ("tanh", lambda raw: (raw.exp() - (-raw).exp()) / (raw.exp() + (-raw).exp())),
        ("sigmoid", lambda raw: 1 / (1 + (-raw).exp())),
        ("softplus", lambda raw: (1 + raw.exp()).log()),
    ],
)
def test_an_output_function_stands_before_the_loss_and_the_scale(output, formula):
    raw, target = draw("regression")
    task = make("regression", shift=(10.0,), scale=(4.0,), output=output)
    value = formula(raw.double())
    expected = ((value - target) ** 2).mean().item()
    assert task.loss(raw, target).item() == pytest.approx(expected, rel=1e-5)
    assert task.loss(raw, target, smooth=True).item() == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(task.predict(raw).double(), value * 4 + 10)
    found = score(task, raw, target)
    assert found["val/mae"] == pytest.approx((value - target).abs().mean().item() * 4, rel=1e-5)
    assert found["val/r2"] == pytest.approx(reference.r2_score(target.numpy(), value.numpy()), rel=1e-4)


@pytest.mark.parametrize(
    ("output", "least", "most"),
    [("tanh", -1.1, 0.5), ("tanh", 0.0, 1.5), ("sigmoid", -0.1, 1.0), ("sigmoid", 0.0, 1.1), ("softplus", -0.1, 9.0)],
)
def test_an_output_that_cannot_reach_the_targets_is_refused(output, least, most):
    with pytest.raises(Refused, match=rf"^task.output={output}: gives values .* write data.target_scaling=minmax"):
        make("regression", facts={"target_range": (least, most)}, output=output)


@pytest.mark.parametrize(
    ("output", "least", "most"),
    [("tanh", -1.0, 1.0), ("sigmoid", 0.0, 1.0), ("softplus", 0.0, 1e6), ("identity", -9, 9)],
)
def test_an_output_that_reaches_the_targets_is_taken(output, least, most):
    assert make("regression", facts={"target_range": (least, most)}, output=output).output_function == (
        OUTPUTS[output][0] if output != "identity" else None
    )


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_classes_keep_their_own_output(task, output):
    with pytest.raises(
        Refused, match=rf"^task.output={output}: .*{task} has its probabilities .*task.output=identity$"
    ):
        make(task, 3, output=output)


# --- ensembles --------------------------------------------------------------------------------------------------------


def draw_members(task, members=4, rows=64):
    """Raw outputs of an ensemble, [B, K, C], and targets."""
    output, target = draw(task, rows)
    torch.manual_seed(9)
    return output[:, None] + torch.randn(rows, members, output.shape[1]), target


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("regression", {}),
        ("regression", {"output": "tanh"}),
        ("regression", {"loss": "huber"}),
        *(("binary", options) for options in ({}, {"label_smoothing": 0.1}, {"class_weight": "balanced"})),
        *(("multiclass", options) for options in ({}, {"label_smoothing": 0.1}, {"class_weight": "balanced"})),
    ],
)
def test_an_ensemble_is_trained_on_the_mean_of_its_members_losses(task, options):
    output, target = draw_members(task)
    counts = {"regression": (), "binary": (30, 10), "multiclass": (30, 10, 5, 5, 14)}[task]
    module = make(task, output.shape[2], facts={"class_counts": counts}, **options)
    expected = torch.stack([module.loss(output[:, k], target, smooth=True) for k in range(4)]).mean()
    assert torch.allclose(module.loss(output, target, smooth=True), expected, rtol=1e-5)


@pytest.mark.parametrize("task", LOSSES)
def test_an_ensemble_predicts_the_mean_of_its_members(task):
    output, target = draw_members(task)
    module = make(task, output.shape[2], shift=(3.0,), scale=(2.0,))
    expected = torch.stack([module.predict(output[:, k]) for k in range(4)]).mean(0)
    said = module.predict(output)
    assert torch.allclose(said, expected, rtol=1e-5, atol=1e-6)
    if task == "multiclass":
        loss = F.nll_loss(expected.log(), target)
    elif task == "binary":
        loss = F.binary_cross_entropy(expected, target)
    else:
        loss = F.mse_loss(output.mean(1), target)
    assert torch.allclose(module.loss(output, target), loss, rtol=1e-5)
    assert score(module, output, target) == pytest.approx(score(module, module.combine(output), target))


def test_the_members_values_are_averaged_behind_the_output_function():
    output, _ = draw_members("regression")
    task = make("regression", output="sigmoid", shift=(3.0,), scale=(2.0,))
    assert torch.allclose(task.predict(output), output.sigmoid().mean(1) * 2 + 3)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_members_that_are_certain_stay_finite(task):
    """Their probabilities are 0 and 1 in single precision; logarithms of these would be infinite."""
    outputs = {"binary": 1, "multiclass": 3}[task]
    output = torch.full((2, 4, outputs), -300.0)
    output[0, :, 0] = 300.0
    output.requires_grad_()
    module = make(task, outputs)
    assert module.combine(output).isfinite().all()
    wrong = torch.tensor([[0.0], [1.0]]) if task == "binary" else torch.tensor([1, 1])
    loss = module.loss(output, wrong)
    assert loss.item() > 100
    loss.backward()
    assert output.grad.isfinite().all()


def test_an_ensemble_takes_soft_targets():
    output, target = draw_members("multiclass")
    soft = F.one_hot(target, 5) * 0.8 + 0.04
    module = make("multiclass", 5)
    expected = torch.stack([module.loss(output[:, k], soft, smooth=True) for k in range(4)]).mean()
    assert torch.allclose(module.loss(output, soft, smooth=True), expected, rtol=1e-5)


# --- predictions ------------------------------------------------------------------------------------------------------


def test_predictions_are_probabilities_or_the_targets_own_units():
    output, _ = draw("multiclass")
    found = make("multiclass", 5).predict(output)
    assert torch.allclose(found, output.exp() / output.exp().sum(1, keepdim=True))
    output, _ = draw("binary")
    assert torch.allclose(make("binary").predict(output), 1 / (1 + (-output).exp()))
    output, _ = draw("regression", outputs=2)
    found = make("regression", 2, shift=(100.0, -3.0), scale=(20.0, 0.5)).predict(output)
    assert torch.allclose(found, torch.stack([output[:, 0] * 20 + 100, output[:, 1] / 2 - 3], 1))


# --- metrics against scikit-learn -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_multiclass_metrics_equal_scikit_learns(seed):
    output, target = draw("multiclass", seed=seed)
    chosen = output.argmax(1)
    assert score(make("multiclass", 5), output, target) == pytest.approx(
        {
            "val/accuracy": reference.accuracy_score(target, chosen),
            "val/f1": reference.f1_score(target, chosen, average="macro"),
        }
    )


@pytest.mark.parametrize("seed", range(3))
def test_binary_metrics_equal_scikit_learns(seed):
    output, target = draw("binary", seed=seed)
    truth, chosen = target.squeeze(1), output.squeeze(1) > 0
    assert score(make("binary"), output, target) == pytest.approx(
        {
            "val/accuracy": reference.accuracy_score(truth, chosen),
            "val/auroc": reference.roc_auc_score(truth, output.squeeze(1)),
            "val/f1": reference.f1_score(truth, chosen),
        }
    )


@pytest.mark.parametrize(
    ("shift", "scale"),
    [
        ((0.0,), (1.0,)),
        ((152.0,), (77.0,)),
        ((1e4,), (2.0,)),  # far from zero, where single precision leaves little of the squares' difference
        ((100.0, -3.0, 0.0), (20.0, 0.1, 1.0)),
    ],
)
def test_regression_metrics_are_in_the_targets_units_and_equal_scikit_learns(shift, scale):
    output, target = draw("regression", outputs=len(shift))
    said, truth = (values.double().numpy() * np.array(scale) + np.array(shift) for values in (output, target))
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
    assert score(task, output, target)["val/r2"] == pytest.approx(reference.r2_score(target, output), rel=1e-4)


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


@pytest.mark.parametrize("task", METRICS)
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


@pytest.mark.parametrize("task", METRICS)
def test_training_has_the_first_metric_only(task):
    output, target = draw(task)
    module = make(task, output.shape[1])
    names = metric_names(task)
    assert set(score(module, output, target, "train")) == {f"train/{names['train'][0]}"}
    assert set(score(module, output, target, "test")) == {f"test/{name}" for name in METRICS[task]}
    assert names["train"] == names["val"][:1]


def test_metrics_keep_no_gradients():
    output, target = draw("binary")
    task = make("binary")
    task.update_metrics("val", output.requires_grad_(), target)
    assert not any(value.requires_grad for value in task.metrics["val"]["auroc"].preds)


# --- the objective ----------------------------------------------------------------------------------------------------


def test_every_metric_has_a_direction():
    names = {name for metrics in METRICS.values() for name in metrics} | {"loss"}
    assert names == BETTER.keys()
    for name in names:
        errors = name in ("loss", "rmse", "mae")
        assert direction(f"val/{name}") == BETTER[name] == ("min" if errors else "max")


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
    spec = Spec("regression", (4,), 1, num_rows=ROWS)
    check_objective("val/rmse", spec)
    check_objective("train/loss", spec)
    for metric in ("val/accuracy", "train/r2"):
        with pytest.raises(Refused, match=f"^objective.metric={metric}: regression has no such metric; .*val/rmse"):
            check_objective(metric, spec)
    without = Spec("regression", (4,), 1, num_rows={"train": 9, "val": 0, "test": 1})
    with pytest.raises(Refused, match=r"data.val_fraction=0 leaves no validation set"):
        check_objective("val/loss", without)
    check_objective("train/loss", without)
