import numpy as np
import pytest

from fitting import Rows, ready
from goldilocks.data.base import split_rows
from goldilocks.data.sources.sklearn_sets import EmbeddedData, load_embedded
from goldilocks.data.targets import encode_target, infer_task
from goldilocks.errors import Refused

FRACTIONS = {"val": 0.2, "test": 0.2}


@pytest.mark.parametrize(
    ("target", "task"),
    [
        ([0, 1, 1, 0], "binary"),
        ([-1.0, 1.0, 1.0], "binary"),
        (["no", "yes", "no"], "binary"),
        ([True, False], "binary"),
        ([0, 1, 2], "multiclass"),
        ([0.0, 1.0, 2.0], "multiclass"),
        (["a", "b", "c"], "multiclass"),
        (list(range(20)), "multiclass"),
        (list(range(21)), "regression"),
        ([str(n) for n in range(21)], "multiclass"),
        ([0.5, 1.2, 3.3], "regression"),
        ([[0], [1], [2]], "multiclass"),
        ([[0, 1], [1, 0], [1, 1]], "regression"),
    ],
)
def test_the_task_is_read_from_the_target(target, task):
    assert infer_task(np.array(target)) == task


def test_whole_numbers_of_many_values_are_a_regression():
    target = load_embedded("diabetes").target
    assert np.array_equal(target, np.round(target))
    assert infer_task(target) == "regression"


def test_the_task_can_be_chosen():
    assert ready(EmbeddedData("wine", task="regression")).spec.task == "regression"


@pytest.mark.parametrize("scaling", ["standard", "minmax", "none"])
@pytest.mark.parametrize("columns", [1, 2])
def test_regression_targets_are_scaled_with_the_training_rows(columns, scaling):
    target = np.random.default_rng(0).normal(
        [100, -3][:columns], [20, 0.1][:columns], size=(200, columns)
    )
    data = ready(Rows(target, target, scaling="none", target_scaling=scaling))
    train = target[split_rows(target, FRACTIONS, 0, stratify=False)["train"]]
    shift, scale = {
        "standard": (train.mean(0), train.std(0)),
        "minmax": (train.min(0), train.max(0) - train.min(0)),
        "none": (0, 1),
    }[scaling]
    spec = data.spec
    assert np.allclose(spec.target_shift, shift)
    assert np.allclose(spec.target_scale, scale)
    assert spec.num_outputs == columns
    for x, y in data.tensors.values():  # the features are the targets in their own units
        restored = y.numpy() * np.array(spec.target_scale) + np.array(spec.target_shift)
        assert np.allclose(restored, x.numpy(), rtol=1e-5)
    scaled = data.tensors["train"][1].double().numpy()
    assert np.allclose(spec.target_centre, scaled.mean(0), atol=1e-6)
    assert np.allclose(spec.target_range, (scaled.min(), scaled.max()), atol=1e-6)
    if scaling == "minmax":
        assert spec.target_range == (0, 1)


@pytest.mark.parametrize("scaling", ["standard", "minmax", "none"])
def test_a_constant_target_stays_finite(scaling):
    data = ready(
        Rows(np.arange(60.0)[:, None], np.full(60, 0.1), task="regression", target_scaling=scaling)
    )
    y = data.tensors["val"][1].double().numpy()
    assert np.isfinite(y).all()
    assert np.allclose(y * np.array(data.spec.target_scale) + np.array(data.spec.target_shift), 0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_missing_targets_are_refused(bad):
    target = np.linspace(0, 1, 60)
    target[[3, 50]] = bad
    with pytest.raises(
        Refused, match=r"^data: the target holds 2 missing or infinite values; drop those rows$"
    ):
        Rows(np.arange(60.0)[:, None], target).setup()


@pytest.mark.parametrize("scaling", ["minmax", "none"])
def test_target_scaling_of_classes_is_refused(scaling):
    with pytest.raises(
        Refused,
        match=rf"^data.target_scaling={scaling}: .* these data are multiclass; leave it out$",
    ):
        EmbeddedData("iris", target_scaling=scaling).setup()


def test_the_spec_counts_the_classes_of_the_training_rows():
    data = ready(Rows(np.arange(100.0)[:, None], np.repeat(["b", "a", "c"], [50, 30, 20])))
    assert data.spec.class_names == ("a", "b", "c")
    assert (
        data.spec.class_counts
        == tuple(np.bincount(data.tensors["train"][1]).tolist())
        == (18, 30, 12)
    )
    binary = ready(Rows(np.arange(100.0)[:, None], np.repeat([7, 3], [80, 20])))
    assert binary.spec.class_counts == (12, 48)


def test_classes_are_indexed_in_sorted_order():
    index, classes = encode_target(np.array(["c", "a", "b", "a"] * 3), "multiclass")
    assert classes.tolist() == ["a", "b", "c"]
    assert index.tolist() == [2, 0, 1, 0] * 3
    index, _ = encode_target(np.array([5, 3, 5] * 3), "binary")
    assert index.tolist() == [[1], [0], [1]] * 3


@pytest.mark.parametrize(
    ("target", "task", "said"),
    [
        (["a", "b"], "regression", "not numbers"),
        ([0, 1, 2] * 3, "binary", "3 values, not 2"),
        ([1] * 9, "multiclass", "a single value"),
        ([1] * 9, "binary", "1 values, not 2"),
        ([0] * 9 + [1, 1], "multiclass", "only 2 rows"),
    ],
)
def test_a_target_that_does_not_fit_the_task_is_refused(target, task, said):
    with pytest.raises(Refused, match=f"^data.task={task}: .*{said}"):
        encode_target(np.array(target), task)
