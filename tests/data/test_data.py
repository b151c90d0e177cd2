import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fitting import Rows, ready
from goldilocks.config.build import build
from goldilocks.data.base import TableData, split_rows
from goldilocks.data.sources.sklearn_sets import EmbeddedData, load_embedded
from goldilocks.data.spec import Spec
from goldilocks.errors import Refused

FRACTIONS = {"val": 0.2, "test": 0.2}


# --- the embedded sets ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "task", "rows", "shape", "outputs"),
    [
        ("digits", "multiclass", 1797, (1, 8, 8), 10),
        ("breast_cancer", "binary", 569, (30,), 1),
        ("wine", "multiclass", 178, (13,), 3),
        ("iris", "multiclass", 150, (4,), 3),
        ("diabetes", "regression", 442, (10,), 1),
    ],
)
def test_embedded_sets_have_the_published_sizes(name, task, rows, shape, outputs):
    data = ready(EmbeddedData(name))
    spec = data.spec
    assert (spec.task, spec.input_shape, spec.num_outputs) == (task, shape, outputs)
    assert len(spec.feature_names) == (shape[0] if len(shape) == 1 else 0)
    assert len(spec.class_names) == {"multiclass": outputs, "binary": 2, "regression": 0}[task]
    assert len(spec.target_shift) == len(spec.target_scale) == (1 if task == "regression" else 0)
    share = round(0.2 * rows)
    assert spec.num_rows == {"train": rows - 2 * share, "val": share, "test": share}
    for stage, (x, y) in data.tensors.items():
        assert x.shape == (spec.num_rows[stage], *shape)
        assert y.shape == ((len(x),) if task == "multiclass" else (len(x), 1))
        assert (x.dtype, y.dtype) == (
            torch.float32,
            torch.long if task == "multiclass" else torch.float32,
        )


def test_digits_are_the_images_of_their_rows():
    table = load_embedded("digits")
    assert np.array_equal(table.features.reshape(-1, 64), load_digits().data)


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


# --- the split ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize(
    "fractions", [FRACTIONS, {"val": 0.0, "test": 0.3}, {"val": 0.5, "test": 0.1}]
)
def test_every_row_is_in_exactly_one_part_of_the_asked_size(stratify, fractions):
    target = np.arange(101) % 3
    parts = split_rows(target, fractions, 0, stratify=stratify)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(101))
    assert {stage: len(parts[stage]) for stage in fractions} == {
        s: round(f * 101) for s, f in fractions.items()
    }


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
    same, other = (
        split_rows(target, FRACTIONS, 0, stratify=False),
        split_rows(target, FRACTIONS, 1, stratify=False),
    )
    for stage in one:
        assert np.array_equal(one[stage], same[stage])
        assert set(one[stage]) != set(other[stage])


def test_the_test_rows_do_not_depend_on_the_validation_share():
    target = np.arange(100) % 2
    with_val = split_rows(target, FRACTIONS, 0, stratify=True)
    without = split_rows(target, {"val": 0.0, "test": 0.2}, 0, stratify=True)
    assert np.array_equal(with_val["test"], without["test"])


@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_the_test_rows_of_the_source_are_kept(fraction):
    """Neither drawn nor counted by test_fraction;
    val_fraction is a share of all rows all the same.
    """
    target = np.arange(200) % 4
    given = np.arange(150, 200)
    data = ready(
        Rows(
            np.arange(200.0)[:, None],
            target,
            given,
            scaling="none",
            val_fraction=fraction,
            test_fraction=0.5,
        )
    )
    rows = {stage: x.squeeze(1).int().tolist() for stage, (x, _) in data.tensors.items()}
    assert rows["test"] == given.tolist()
    assert len(rows["val"]) == round(200 * fraction)
    assert sorted(rows["train"] + rows["val"]) == list(range(150))


def test_a_fraction_of_zero_leaves_no_set():
    data = ready(EmbeddedData("iris", val_fraction=0.0, test_fraction=0.0))
    assert data.spec.num_rows == {"train": 150, "val": 0, "test": 0}
    assert data.val_dataloader() == []
    assert data.test_dataloader() == []


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.9, 0.3)])
def test_fractions_that_leave_nothing_to_train_on_are_refused(fractions):
    val, test = fractions
    with pytest.raises(
        Refused, match=f"data.val_fraction={val} and data.test_fraction={test} leave no rows"
    ):
        EmbeddedData("iris", val_fraction=val, test_fraction=test)


@pytest.mark.parametrize("stage", ["val", "test"])
@pytest.mark.parametrize("value", [1, -0.1, 1.5, "half", True])
def test_a_fraction_out_of_range_is_refused(stage, value):
    node = {
        "_target_": "goldilocks.data.sources.sklearn_sets.EmbeddedData",
        "name": "iris",
        f"{stage}_fraction": value,
    }
    with pytest.raises(Refused, match=rf"^data\.{stage}_fraction={str(value).lower()}: "):
        build(node, TableData, "data")


@pytest.mark.parametrize("stage", ["val", "test"])
def test_a_part_too_small_for_every_class_is_refused(stage):
    with pytest.raises(
        Refused, match=f"data.{stage}_fraction=0.01: 2 of 150 rows; at least 3 and at most"
    ):
        EmbeddedData("iris", **{f"{stage}_fraction": 0.01}).setup()


# --- loaders --------------------------------------------------------------------------------------


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
