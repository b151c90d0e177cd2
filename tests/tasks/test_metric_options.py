"""Metrics of torchmetrics, chosen by name: values, directions, refusals."""

import pytest
from scipy.stats import spearmanr
from sklearn import metrics as reference

from drawing import draw, make, score
from goldilocks.config.metric_directions import direction
from goldilocks.data.spec import Spec
from goldilocks.errors import Refused
from goldilocks.tasks.metrics import check_metrics, metric_makers
from goldilocks.tasks.objective import Objective, is_defined
from goldilocks.tasks.task import Task

MATTHEWS = {"_target_": "torchmetrics.MatthewsCorrCoef", "mode": "max"}


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_matthews_correlation_is_a_word(task):
    output, target = draw(task)
    module = make(task, output.shape[1], metrics=("accuracy", "matthews", "kappa"))
    chosen = output.argmax(1) if task == "multiclass" else (output > 0).long().squeeze(1)
    truth = target.long().reshape(-1)
    assert score(module, output, target) == pytest.approx(
        {
            "val/accuracy": reference.accuracy_score(truth, chosen),
            "val/matthews": reference.matthews_corrcoef(truth, chosen),
            "val/kappa": reference.cohen_kappa_score(truth, chosen),
        },
        rel=1e-5,
    )
    assert module.names("train") == ["accuracy"]


def test_a_metric_of_several_targets_is_the_mean_of_theirs_in_the_targets_units():
    output, target = draw("regression", outputs=2)
    scale, shift = (3.0, 0.5), (40.0, 9.0)
    module = make("regression", 2, shift, scale, metrics=("spearman",))
    ranks = [spearmanr(output[:, place], target[:, place]).statistic for place in range(2)]
    assert score(module, output, target)["val/spearman"] == pytest.approx(sum(ranks) / 2, rel=1e-4)
    nodes = {"mape": {"_target_": "torchmetrics.MeanAbsolutePercentageError", "mode": "min"}}
    found = score(Task(module.spec, makers=metric_makers(nodes, module.spec)), output, target)
    said, truth = ((values.double().numpy() * scale + shift) for values in (output, target))
    assert found["val/mape"] == pytest.approx(
        reference.mean_absolute_percentage_error(truth, said), rel=1e-4
    )


def test_probabilities_not_logits_are_what_a_library_takes():
    """Logits between 0 and 1 would be taken for probabilities."""
    output, target = draw("multiclass")
    output = output.sigmoid()
    module = make("multiclass", 5)
    makers = metric_makers({"ours": {"_target_": "torchmetrics.CalibrationError"}}, module.spec)
    own = score(Task(module.spec, makers=makers), output, target)
    assert own["val/ours"] == pytest.approx(score(module, output, target)["val/ece"], rel=1e-5)


def test_a_correlation_is_defined_though_a_constant_guess_has_none():
    _, target = draw("regression")
    task = make("regression", metrics=("spearman",))
    assert is_defined("spearman", task, target)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"loss": MATTHEWS}, "metrics.loss: is the name of the loss"),
        ({"m": {**MATTHEWS, "mode": "up"}}, "metrics.m: says mode=up; write metrics.m.mode=max"),
        ({"m": {"_target_": MATTHEWS["_target_"]}}, "metrics.m: says mode=None; write metrics.m"),
        ({"m": {"_target_": "torch.nn.ReLU", "mode": "max"}}, "must be a subclass of torchmetrics"),
        (
            {"m": {"_target_": "torchmetrics.MeanSquaredError", "mode": "max"}},
            "metrics.m.mode=max: min is better for MeanSquaredError",
        ),
        ({"auto": 3}, "metrics.auto=3: true, false or null is expected"),
    ],
)
def test_a_wrong_option_is_refused_before_data_are_read(metrics, said):
    with pytest.raises(Refused, match=said):
        check_metrics(metrics, ())


@pytest.mark.parametrize(
    ("task", "node", "said"),
    [
        ("multiclass", {"_target_": "goldilocks.tasks.metrics.RMSE"}, "m: is not for multiclass"),
        ("multiclass", {"_target_": "torchmetrics.ConfusionMatrix"}, r"m: gives \[5, 5\]"),
        *(
            ("regression", {"_target_": f"torchmetrics.{kind}"}, "m: is not for regression; write")
            for kind in ("MatthewsCorrCoef", "Specificity", "CohenKappa")
        ),
        ("multiclass", {"_target_": "torchmetrics.SpearmanCorrCoef"}, "m: is not for multiclass"),
        (
            "regression",
            {"_target_": "torchmetrics.classification.BinaryAccuracy"},
            "m: is not for regression; write some of: auto, rmse, mae, r2",
        ),
        ("multiclass", {**MATTHEWS, "treshold": 1}, "m.*treshold"),
        ("multiclass", {"_target_": "torchmetrics.MeanSquaredError"}, "m: is not for multiclass"),
    ],
)
def test_a_metric_of_another_task_is_refused(task, node, said):
    spec = Spec(task, (4,), 5 if task == "multiclass" else 1, num_rows={"train": 9, "val": 9})
    with pytest.raises(Refused, match=rf"^metrics\.{said}"):
        Task(spec, makers=metric_makers({"m": node}, spec)).try_metrics()


def test_the_direction_is_the_options_and_unknown_names_have_a_near_miss():
    metrics = {"auto": True, "matthews": MATTHEWS}
    assert direction("val/matthews", metrics) == "max"
    with pytest.raises(Refused, match="did you mean val/matthews"):
        direction("val/mathews", metrics)
    with pytest.raises(Refused, match="no such metric"):
        direction("val/auroc", {"matthews": MATTHEWS})
    assert Objective("val/matthews", "max", metrics).better(0.3, 0.2)
