import numpy as np
import pytest
import torch

from goldilocks.config import build
from goldilocks.data.base import (
    Table,
    TableData,
    apply_scaler,
    encode_target,
    fit_scaler,
    infer_task,
    split_rows,
)
from goldilocks.data.embedded import EmbeddedData, load_embedded
from goldilocks.data.spec import Spec
from goldilocks.errors import Refused

FRACTIONS = {"val": 0.2, "test": 0.2}


class Rows(TableData):
    """A table given to the constructor."""

    def __init__(self, features, target, **options):
        super().__init__(**options)
        self.table = Table(np.asarray(features), np.asarray(target))

    def load(self):
        return self.table


def ready(data):
    data.setup()
    return data


def numbers(num_rows=60, num_features=3, seed=0):
    return np.random.default_rng(seed).normal(5, 3, size=(num_rows, num_features))


# --- the embedded sets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "task", "rows", "features", "outputs"),
    [
        ("digits", "multiclass", 1797, 64, 10),
        ("breast_cancer", "binary", 569, 30, 1),
        ("wine", "multiclass", 178, 13, 3),
        ("iris", "multiclass", 150, 4, 3),
        ("diabetes", "regression", 442, 10, 1),
    ],
)
def test_embedded_sets_have_the_published_sizes(name, task, rows, features, outputs):
    data = ready(EmbeddedData(name))
    spec = data.spec
    assert (spec.task, spec.input_shape, spec.num_outputs) == (task, (features,), outputs)
    assert len(spec.feature_names) == features
    assert len(spec.class_names) == {"multiclass": outputs, "binary": 2, "regression": 0}[task]
    assert len(spec.target_mean) == len(spec.target_std) == (1 if task == "regression" else 0)
    share = round(0.2 * rows)
    assert spec.num_rows == {"train": rows - 2 * share, "val": share, "test": share}
    for stage, (x, y) in data.tensors.items():
        assert x.shape == (spec.num_rows[stage], features)
        assert y.shape == ((len(x),) if task == "multiclass" else (len(x), 1))
        assert (x.dtype, y.dtype) == (torch.float32, torch.long if task == "multiclass" else torch.float32)


def test_class_names_stand_at_their_index():
    assert ready(EmbeddedData("iris")).spec.class_names == ("setosa", "versicolor", "virginica")
    words = ["wolf", "bear", "cub"] * 20
    data = ready(Rows(np.arange(60.0)[:, None], words, scaling="none"))
    assert data.spec.class_names == ("bear", "cub", "wolf")
    for x, y in data.tensors.values():
        assert [data.spec.class_names[index] for index in y] == [words[int(row)] for row in x[:, 0]]


def test_the_spec_survives_plain_containers():
    spec = ready(EmbeddedData("diabetes")).spec
    assert Spec.from_plain(spec.as_plain()) == spec


# --- the split --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize("fractions", [FRACTIONS, {"val": 0.0, "test": 0.3}, {"val": 0.5, "test": 0.1}])
def test_every_row_is_in_exactly_one_part_of_the_asked_size(stratify, fractions):
    target = np.arange(101) % 3
    parts = split_rows(target, fractions, 0, stratify=stratify)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(101))
    assert {stage: len(parts[stage]) for stage in fractions} == {s: round(f * 101) for s, f in fractions.items()}


@pytest.mark.parametrize("seed", range(3))
def test_a_stratified_split_keeps_the_shares_of_the_classes(seed):
    target = np.repeat([0, 1, 2], [700, 250, 50])
    parts = split_rows(target, FRACTIONS, seed, stratify=True)
    for rows in parts.values():
        expected = np.array([0.7, 0.25, 0.05]) * len(rows)
        assert np.abs(np.bincount(target[rows]) - expected).max() <= 1


def test_the_seed_decides_the_split_alone():
    target = np.arange(100)
    np.random.seed(1)
    one = split_rows(target, FRACTIONS, 0, stratify=False)
    np.random.seed(2)
    same, other = split_rows(target, FRACTIONS, 0, stratify=False), split_rows(target, FRACTIONS, 1, stratify=False)
    for stage in one:
        assert np.array_equal(one[stage], same[stage])
        assert set(one[stage]) != set(other[stage])


def test_the_test_rows_do_not_depend_on_the_validation_share():
    target = np.arange(100) % 2
    with_val = split_rows(target, FRACTIONS, 0, stratify=True)
    without = split_rows(target, {"val": 0.0, "test": 0.2}, 0, stratify=True)
    assert np.array_equal(with_val["test"], without["test"])


def test_a_fraction_of_zero_leaves_no_set():
    data = ready(EmbeddedData("iris", val_fraction=0.0, test_fraction=0.0))
    assert data.spec.num_rows == {"train": 150, "val": 0, "test": 0}
    assert data.val_dataloader() == []
    assert data.test_dataloader() == []


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.9, 0.3)])
def test_fractions_that_leave_nothing_to_train_on_are_refused(fractions):
    val, test = fractions
    with pytest.raises(Refused, match=f"data.val_fraction={val} and data.test_fraction={test} leave no rows"):
        EmbeddedData("iris", val_fraction=val, test_fraction=test)


@pytest.mark.parametrize("stage", ["val", "test"])
@pytest.mark.parametrize("value", [1, -0.1, 1.5, "half", True])
def test_a_fraction_out_of_range_is_refused(stage, value):
    node = {"_target_": "goldilocks.data.embedded.EmbeddedData", "name": "iris", f"{stage}_fraction": value}
    with pytest.raises(Refused, match=rf"^data\.{stage}_fraction={str(value).lower()}: "):
        build(node, TableData, "data")


@pytest.mark.parametrize("stage", ["val", "test"])
def test_a_part_too_small_for_every_class_is_refused(stage):
    with pytest.raises(Refused, match=f"data.{stage}_fraction=0.01: 2 of 150 rows; at least 3 and at most"):
        EmbeddedData("iris", **{f"{stage}_fraction": 0.01}).setup()


# --- scaling ----------------------------------------------------------------------------------------------------------


def parts_of(data):
    """The features of each part, unscaled, and the split that made them."""
    table = data.load()
    target, _ = encode_target(table.target, data.spec.task)
    rows = split_rows(target, data.fractions, data.seed, stratify=data.spec.task != "regression")
    return {stage: table.features[index] for stage, index in rows.items()}


@pytest.mark.parametrize("name", ["wine", "diabetes"])
@pytest.mark.parametrize("seed", [0, 3])
def test_standard_scaling_takes_mean_and_deviation_of_the_training_rows(name, seed):
    data = ready(EmbeddedData(name, seed=seed))
    raw = parts_of(data)
    mean, deviation = raw["train"].mean(0), raw["train"].std(0)
    for stage, (x, _) in data.tensors.items():
        assert np.allclose(x.numpy(), (raw[stage] - mean) / deviation, rtol=1e-4, atol=1e-4)
    assert not np.allclose(data.tensors["val"][0].mean(0), 0, atol=0.01)


def test_minmax_scaling_takes_the_range_of_the_training_rows():
    data = ready(EmbeddedData("wine", scaling="minmax"))
    raw = parts_of(data)
    low, high = raw["train"].min(0), raw["train"].max(0)
    for stage, (x, _) in data.tensors.items():
        assert np.allclose(x.numpy(), (raw[stage] - low) / (high - low), atol=1e-5)
    assert data.tensors["train"][0].min() == 0
    assert data.tensors["train"][0].max() == 1


def test_no_scaling_leaves_the_numbers():
    data = ready(EmbeddedData("wine", scaling="none"))
    for stage, raw in parts_of(data).items():
        assert np.array_equal(data.tensors[stage][0].numpy(), raw.astype(np.float32))


@pytest.mark.parametrize("scaling", ["standard", "minmax"])
def test_rows_outside_of_training_do_not_touch_the_scaling(scaling):
    features, target = numbers(), np.linspace(0, 1, 60) ** 2
    rows = split_rows(target, FRACTIONS, 0, stratify=False)
    wild = features.copy()
    wild[np.concatenate([rows["val"], rows["test"]])] *= 1000
    wild_target = target.copy()
    wild_target[np.concatenate([rows["val"], rows["test"]])] += 1000
    calm, upset = ready(Rows(features, target, scaling=scaling)), ready(Rows(wild, wild_target, scaling=scaling))
    for ours, theirs in zip(calm.tensors["train"], upset.tensors["train"], strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("scaling", ["standard", "minmax"])
@pytest.mark.parametrize("constant", [0.0, 0.1, -7.3e5])
def test_a_constant_feature_becomes_zero(scaling, constant):
    features = numbers(num_rows=70)
    features[:, 1] = constant
    data = ready(Rows(features, np.linspace(0, 1, 70) ** 2, scaling=scaling))
    for x, _ in data.tensors.values():
        assert torch.equal(x[:, 1], torch.zeros(len(x)))
        assert x.isfinite().all()


@pytest.mark.parametrize("scaling", ["standard", "minmax"])
def test_a_feature_far_from_zero_keeps_its_differences(scaling):
    """A time in seconds since 1970: single precision would round it to steps of 128 before it is scaled."""
    seconds = 1.7e9 + np.arange(60.0)[:, None]
    data = ready(Rows(seconds, np.linspace(0, 1, 60) ** 2, scaling=scaling))
    near = ready(Rows(seconds - 1.7e9, np.linspace(0, 1, 60) ** 2, scaling=scaling))
    for stage, (x, _) in data.tensors.items():
        assert torch.allclose(x, near.tensors[stage][0], atol=1e-4)


def test_scaling_agrees_with_scikit_learn():
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    train, other = numbers(seed=1).astype(np.float32), numbers(seed=2).astype(np.float32)
    for scaling, reference in (("standard", StandardScaler()), ("minmax", MinMaxScaler())):
        ours = apply_scaler(other, fit_scaler(train, scaling))
        assert np.allclose(ours, reference.fit(train).transform(other), atol=1e-5)


def test_a_scaler_from_a_checkpoint_is_used_and_not_fitted_again(tmp_path):
    trained = ready(EmbeddedData("wine", seed=1))
    torch.save(trained.state_dict(), tmp_path / "state.ckpt")
    state = torch.load(tmp_path / "state.ckpt", weights_only=True)
    assert Spec.from_plain(state["spec"]) == trained.spec
    again = EmbeddedData("wine", seed=2)
    again.load_state_dict(state)
    again.setup()
    shift, scale = (trained.scaler[key].numpy() for key in ("shift", "scale"))
    for stage, raw in parts_of(again).items():
        assert np.allclose(again.tensors[stage][0].numpy(), (raw - shift) / scale, rtol=1e-4, atol=1e-4)


# --- the target -------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("columns", [1, 2])
def test_regression_targets_are_standardised_with_the_training_rows(columns):
    target = np.random.default_rng(0).normal([100, -3][:columns], [20, 0.1][:columns], size=(200, columns))
    data = ready(Rows(target, target, scaling="none"))
    train = target[split_rows(target, FRACTIONS, 0, stratify=False)["train"]]
    assert np.allclose(data.spec.target_mean, train.mean(0))
    assert np.allclose(data.spec.target_std, train.std(0))
    assert data.spec.num_outputs == columns
    for x, y in data.tensors.values():  # the features are the targets in their own units
        restored = y.numpy() * np.array(data.spec.target_std) + np.array(data.spec.target_mean)
        assert np.allclose(restored, x.numpy(), rtol=1e-5)


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


# --- loaders ----------------------------------------------------------------------------------------------------------


def test_training_batches_are_shuffled_and_of_the_asked_size():
    data = ready(EmbeddedData("iris", batch_size=16))
    sizes = [size for item in data.train_dataloader() for size in item.sizes]
    assert sizes == [16] * 5 + [10]
    rows = torch.cat([x for item in data.train_dataloader() for x, _ in item.split()])
    assert not torch.equal(rows, data.tensors["train"][0])


@pytest.mark.parametrize("stage", ["val", "test"])
def test_evaluation_takes_all_rows_in_order_in_few_batches(stage):
    data = ready(EmbeddedData("digits", batch_size=16))
    (item,) = getattr(data, f"{stage}_dataloader")()
    assert item.sizes == [len(data.tensors[stage][0])]
    assert torch.equal(next(item.split())[0], data.tensors[stage][0])
    assert torch.equal(item.y, data.tensors[stage][1])


def test_setup_happens_once():
    data = ready(EmbeddedData("iris"))
    tensors = data.tensors["train"][0]
    data.setup("fit")
    assert data.tensors["train"][0] is tensors


def test_a_source_without_load_says_so():
    with pytest.raises(NotImplementedError):
        TableData().setup()


def test_missing_values_are_refused_by_name():
    from goldilocks.data.base import check_finite

    features = np.ones((5, 2))
    check_finite(features, ("a", "b"))
    features[3, 1] = np.nan
    features[4, 1] = np.inf
    with pytest.raises(Refused, match="data: feature b holds 2 missing or infinite values"):
        check_finite(features, ("a", "b"))
