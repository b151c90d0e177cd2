"""data=table from a file to a trained network: split, task, decisions, checkpoint."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from goldilocks.config.build import check_arguments
from goldilocks.data.sources.table_file import TableFile
from goldilocks.data.tables.card import spoken
from goldilocks.errors import Refused
from goldilocks.models.embedding import CategoryVectors, WithVectors, vector_size
from goldilocks.training.checkpoints import load_checkpoint
from goldilocks.training.components import prepare
from tables import SHARED, cars, write

QUICK = [
    "data=table",
    "data.target=price",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "callbacks.progress_bar=null",
    "callbacks.baselines=null",
]


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "cars.csv", cars())


def ready(path, target="price", **options):
    data = TableFile(path=path, target=target, **{"val_fraction": 0.1, **options})
    data.setup()
    return data


def frame_of(path):
    return pd.read_csv(path)


# --- a command ------------------------------------------------------------------------------------


def test_a_file_and_a_target_are_all_it_takes(command, path):
    ended = command(*QUICK, f"data.path={path}")
    assert ended.code == 0, ended.err
    card = yaml.safe_load((ended.folder / "data_card.yaml").read_text(encoding="utf-8"))
    assert (card["target"]["name"], card["target"]["task"]) == (["price"], "regression")
    assert card["rows"] == {"train": 63, "test": 18, "val": 9}
    kinds = {column["name"]: column["kind"] for column in card["columns"]}
    assert kinds == {
        "id": "identifier",
        "size": "numeric",
        "age": "numeric",
        "make": "categorical",
        "fuel": "binary",
        "colour": "categorical",
        "sold": "date",
    }
    used = {column["name"]: column["features"] for column in card["columns"]}
    assert used == {"id": 0, "size": 1, "age": 2, "make": 4, "fuel": 1, "colour": 3, "sold": 5}
    assert sum(used.values()) == card["inputs"] == 16
    assert [check["name"] for check in card["checks"]] == [
        "rows in two splits",
        "single features",
        "target",
    ]
    page = (ended.folder / "data_card.md").read_text(encoding="utf-8")
    assert "- id: identifier, numbers the rows" in page
    assert "| fuel | binary | two values | 0.0% | 2 |" in page
    assert "Target: price, regression (90 different numbers)." in page


def test_decisions_on_the_command_line(command, path):
    words = ["data.columns.age=drop", "data.columns.id=numeric", "data.columns.make=drop"]
    ended = command(*QUICK, f"data.path={path}", *words)
    assert ended.code == 0, ended.err
    card = yaml.safe_load((ended.folder / "data_card.yaml").read_text(encoding="utf-8"))
    told = {column["name"]: (column["kind"], column["reason"]) for column in card["columns"]}
    assert told["age"] == told["make"] == ("drop", "as data.columns says")
    assert told["id"] == ("numeric", "as data.columns says")


def test_names_that_are_no_keys_of_hydras(command, tmp_path):
    lines = cars()
    lines[0] = lines[0].replace("size", "size (m, all)").replace("age", "c.age")
    words = ["data.columns.size (m\\, all)=drop", "data.columns.c.age=drop"]
    lines[0] = lines[0].replace("size (m, all)", '"size (m: all)"')
    path = write(tmp_path / "cars.csv", lines)
    ended = command(*QUICK, f"data.path={path}", "data.columns.size (m: all)=drop", words[1])
    assert ended.code == 0, ended.err
    assert "- size (m: all): drop, as data.columns says" in (
        ended.folder / "data_card.md"
    ).read_text(encoding="utf-8")


def test_what_is_missing_or_wrong_is_said(command, path):
    for words, line in (
        ([], "error: data.path: is missing; write data.path=FILE.csv data.target=COLUMN"),
        (
            [f"data.path={path}", "data.target=null"],
            "error: data.target: is missing; write data.target=COLUMN: id, size",
        ),
        (
            [f"data.path={path}", "data.target=prise"],
            "error: data.target=prise: there is no such column; did you mean p",
        ),
        (
            [f"data.path={path}", "data.columns.makes=drop"],
            "error: data.columns.makes=drop: there is no such column;",
        ),
        ([f"data.path={path}", "data.columns.make=word"], "error: data.columns={make: word}: "),
        (
            [f"data.path={path}", "data.group_column=x"],
            "error: data.group_column=x: there is no such column",
        ),
    ):
        ended = command(*QUICK, *words)
        assert (ended.code, ended.new) == (2, [])
        assert ended.err.startswith(line), ended.err
        assert len(ended.err.splitlines()) == 1


def test_a_sweep_reads_the_table_once(command, path, monkeypatch):
    read = []
    real = pd.read_csv
    monkeypatch.setattr(
        pd, "read_csv", lambda *words, **options: read.append(1) or real(*words, **options)
    )
    ended = command(
        "-m", *QUICK, f"data.path={path}", "name=trial", "model.width=8,16", "trainer.max_epochs=1"
    )
    assert ended.code == 0, ended.err
    assert len(read) == 1


# --- task -----------------------------------------------------------------------------------------


def table_of(tmp_path, target):
    random = np.random.default_rng(0)
    lines = ["x,y,price", *(f"{random.normal()},{random.normal()},{value}" for value in target)]
    return write(tmp_path / "table.csv", lines)


TARGETS = {
    "two numbers": ([1, 2] * 30, "binary", ("1", "2")),
    "two words": (["no", "yes"] * 30, "binary", ("no", "yes")),
    "true and false": ([True, False] * 30, "binary", ("False", "True")),
    "a few whole numbers": ([1, 2, 3] * 20, "multiclass", ("1", "2", "3")),
    "whole numbers with gaps": ([1, 2, 3, ""] * 20, "multiclass", ("1", "2", "3")),
    "words": (["a", "b", "c"] * 20, "multiclass", ("a", "b", "c")),
    "many whole numbers": (range(60), "regression", ()),
    "numbers": (np.linspace(0, 1, 60), "regression", ()),
}


@pytest.mark.parametrize(("target", "task", "classes"), TARGETS.values(), ids=TARGETS)
def test_the_task_follows_from_the_target(target, task, classes, tmp_path):
    data = ready(table_of(tmp_path, target))
    assert (data.spec.task, data.spec.class_names) == (task, classes)
    assert data.card()["target"]["task"] == task


def test_the_task_can_be_said(tmp_path):
    path = table_of(tmp_path, [1, 2, 3] * 20)
    assert ready(path, task="regression").spec.task == "regression"
    assert ready(path).card()["target"]["training_rows_by_class"] == {"1": 14, "2": 14, "3": 14}


def test_several_targets(path):
    data = ready(path, target=["price", "size"])
    assert (data.spec.task, data.spec.target_names, data.spec.num_outputs) == (
        "regression",
        ("price", "size"),
        2,
    )
    assert "size" not in data.spec.feature_names
    with pytest.raises(Refused, match=r"^data\.target=make: several targets must be numbers"):
        ready(path, target=["price", "make"])


def test_a_skewed_target_is_learnt_as_its_logarithm(tmp_path):
    random = np.random.default_rng(0)
    path = table_of(tmp_path, np.exp(2 * random.normal(size=80)))
    assert ready(path).spec.target_log == ()
    for option in ("auto", True):
        data = ready(path, target_log=option)
        y = data.tensors["train"][1].double().numpy()
        raw = np.log(pd.read_csv(path)["price"].to_numpy()[data.row_numbers["train"]])
        assert y[:, 0] == pytest.approx((raw - raw.mean()) / raw.std(), abs=1e-5)
        assert data.spec.target_log == (True,)
    even = table_of(tmp_path, np.linspace(1, 2, 80))
    assert not any(ready(even, target_log="auto").spec.target_log)
    with pytest.raises(Refused, match=r"^data\.target_log=true: some targets are not above zero"):
        ready(table_of(tmp_path, np.linspace(-1, 2, 80)), target_log=True)


def test_metrics_of_logarithms_are_in_the_targets_own_units(compose, tmp_path):
    random = np.random.default_rng(0)
    path = table_of(tmp_path, np.exp(random.normal(size=80)))
    parts = prepare(
        compose(*QUICK, f"data.path={path}", "data.target_log=true", "model.output_scale=1")
    )
    task, (x, y) = parts.module.task, parts.data.tensors["test"]
    output = parts.module.network(x).detach()
    target = pd.read_csv(path)["price"].to_numpy()[parts.data.row_numbers["test"]]
    assert task.unscale(y)[:, 0].double().numpy() == pytest.approx(target, rel=1e-5)
    task.update_metrics("test", output, y)
    found, guess = task.compute_metrics("test"), task.predict(output)[:, 0].double().numpy()
    assert found["test/rmse"] == pytest.approx(np.sqrt(np.mean((guess - target) ** 2)), rel=1e-4)
    assert found["test/r2"] == pytest.approx(
        1 - np.mean((guess - target) ** 2) / target.var(), rel=1e-4
    )


def test_a_leak_is_warned_of(command, tmp_path):
    random = np.random.default_rng(0)
    rows = [
        f"{random.normal()},{random.normal()},{row},{2 * row + 1}"
        for row in random.permutation(200) // 4
    ]
    path = write(tmp_path / "leak.csv", ["a,b,paid,price", *rows])
    ended = command(*QUICK, f"data.path={path}")
    assert ended.code == 0
    assert ended.err.startswith("training on ")
    assert "\nwarning: single features: paid alone: 100% of a guess's error removed" in ended.err
    assert "is it known before the target is?" in (ended.folder / "data_card.md").read_text(
        encoding="utf-8"
    )


def test_rows_are_counted_as_in_the_file(tmp_path):
    data = ready(table_of(tmp_path, ["" if row < 30 else row for row in range(90)]))
    assert sorted(np.concatenate(list(data.row_numbers.values()))) == list(range(30, 90))
    assert data.card()["notes"][1] == "30 rows without a target are left out"


# --- split ----------------------------------------------------------------------------------------


def test_files_of_their_own_for_validation_and_test(tmp_path):
    header, *rows = cars()
    train = write(tmp_path / "train.csv", [header, *rows[:60]])
    val, test = (
        write(tmp_path / "val.csv", [header, *rows[60:70]]),
        write(tmp_path / "test.csv", [header, *rows[70:]]),
    )
    data = ready(train, val_path=val, test_path=test)
    assert {stage: numbers.tolist() for stage, numbers in data.row_numbers.items()} == {
        "train": list(range(60)),
        "val": list(range(60, 70)),
        "test": list(range(70, 90)),
    }
    assert "drawn" not in data.how_split()
    part = ready(train, test_path=test)
    assert part.spec.num_rows == {"test": 20, "train": 52, "val": 8}
    assert part.how_split() == f"test from {test}, drawn with data.seed=0"
    other = write(tmp_path / "other.csv", ["id,size", "1,2"])
    with pytest.raises(
        Refused, match=r"^data\.test_path=.*other\.csv: lacks the column age of data\.path"
    ):
        ready(train, test_path=other)


def with_column(tmp_path, name, values):
    header, *rows = cars()
    return write(
        tmp_path / "more.csv",
        [f"{header},{name}", *(f"{row},{v}" for row, v in zip(rows, values, strict=True))],
    )


def test_a_column_gives_the_split(tmp_path):
    path = with_column(tmp_path, "part", ["train", "Train", "valid", "TEST", "training"] * 18)
    data = ready(path, split_column="part")
    assert data.row_numbers["val"].tolist() == list(range(2, 90, 5))
    assert data.row_numbers["test"].tolist() == list(range(3, 90, 5))
    assert not any("part" in name for name in data.spec.feature_names)
    path = with_column(tmp_path, "part", ["train", "rest"] * 45)
    with pytest.raises(
        Refused, match=r"^data\.split_column=part: row 2 says rest; write train, val or test"
    ):
        ready(path, split_column="part")


def test_groups_stay_together(tmp_path):
    groups = [f"owner{row // 6}" for row in range(90)]
    data = ready(with_column(tmp_path, "owner", groups), group_column="owner", val_fraction=0.2)
    found = {stage: {groups[row] for row in rows} for stage, rows in data.row_numbers.items()}
    assert {stage: len(names) for stage, names in found.items()} == {
        "train": 9,
        "val": 3,
        "test": 3,
    }
    assert (
        not found["train"] & found["val"]
        and not found["train"] & found["test"]
        and not found["val"] & found["test"]
    )
    with pytest.raises(
        Refused, match=r"^data\.group_column=owner: 2 groups are too few for data\."
    ):
        ready(with_column(tmp_path, "owner", ["a", "b"] * 45), group_column="owner")


@pytest.mark.parametrize("style", ["%Y-%m-%d", "%d.%m.%Y", "%Y%m%d"])
def test_the_latest_rows_are_the_test(style, tmp_path):
    days = np.random.default_rng(0).permutation(90)
    dates = [
        (pd.Timestamp("2024-01-01") + pd.Timedelta(days=int(day))).strftime(style) for day in days
    ]
    data = ready(with_column(tmp_path, "day", dates), time_column="day")
    assert sorted(days[data.row_numbers["test"]]) == list(range(72, 90))
    assert sorted(days[data.row_numbers["val"]]) == list(range(63, 72))
    assert not any(name.startswith("day") for name in data.spec.feature_names)
    with_date = ready(
        with_column(tmp_path, "day", dates), time_column="day", columns={"day": "date"}
    )
    assert (
        ("day days" in with_date.spec.feature_names) == (style != "%Y%m%d")
    ) or style == "%Y%m%d"


def test_rows_of_the_same_time_stay_together(tmp_path):
    data = ready(
        with_column(tmp_path, "year", [2000 + row // 10 for row in range(90)]), time_column="year"
    )
    assert data.spec.num_rows == {"train": 60, "test": 20, "val": 10}
    with pytest.raises(Refused, match=r"^data\.time_column=year: too few different times"):
        ready(with_column(tmp_path, "year", [2000] * 90), time_column="year")
    with pytest.raises(Refused, match=r"^data\.time_column=make: 90 of 90 rows hold no date"):
        ready(write(tmp_path / "cars.csv", cars()), time_column="make")


def test_only_one_thing_splits_the_rows(path):
    with pytest.raises(
        Refused, match=r"^data\.split_column=make and data\.time_column=sold: only one of them"
    ):
        TableFile(path=path, target="price", split_column="make", time_column="sold")


# --- many categories ------------------------------------------------------------------------------


@pytest.fixture
def towns(tmp_path):
    return with_column(tmp_path, "town", [f"town{row % 40}" for row in range(90)])


MODELS = ["linear", "shallow", "deep", "wide", "pyramid", "selfnorm", "resnet", "realmlp", "tabm"]


@pytest.mark.parametrize("model", MODELS)
def test_every_network_learns_vectors_for_many_categories(model, command, towns):
    ended = command(
        *QUICK,
        f"data.path={towns}",
        f"model={model}",
        "data.max_one_hot=10",
        "regularization=[mixup,noise]",
    )
    assert ended.code == 0, ended.err
    weights = load_checkpoint(ended.folder / "checkpoints" / "best.ckpt")["state_dict"]
    (shape,) = [tuple(weight.shape) for name, weight in weights.items() if ".vectors." in name]
    assert shape == (count := shape[0], vector_size(count))
    assert 20 < count < 41


def test_the_vectors_are_put_in_place_of_the_numbers():
    vectors = CategoryVectors([5, 3])
    x = torch.tensor([[0.5, 4.0, 0.0], [1.5, 0.0, 2.0]])
    first, second = (table.weight for table in vectors.tables)
    expected = torch.stack(
        [torch.cat([x[k, :1], first[int(x[k, 1])], second[int(x[k, 2])]]) for k in range(2)]
    )
    assert torch.equal(vectors(x), expected)
    assert vectors.width(3) == expected.shape[1]
    network = WithVectors(vectors, torch.nn.Linear(vectors.width(3), 2))
    network(x).sum().backward()
    assert first.grad[4].abs().sum() > 0
    assert first.grad[1].abs().sum() == 0


def test_precision_that_cannot_count_categories_is_refused(compose, tmp_path):
    lines = cars(900)
    rows = [f"{line},town{place % 400}" for place, line in enumerate(lines[1:])]
    path = write(tmp_path / "towns.csv", [f"{lines[0]},town", *rows])
    with pytest.raises(
        Refused, match=r"^trainer\.precision=bf16-true: cannot hold the numbers of \d+ categories"
    ):
        prepare(
            compose(
                *QUICK,
                f"data.path={path}",
                "data.min_category_rows=1",
                "trainer.precision=bf16-true",
            )
        )


# --- again ----------------------------------------------------------------------------------------


def test_a_checkpoint_prepares_rows_as_the_run_did(command, compose, path):
    ended = command(*QUICK, f"data.path={path}")
    checkpoint = load_checkpoint(ended.folder / "checkpoints" / "best.ckpt")
    first = ready(path)
    header, *rows = cars(seed=1)
    write(ended.folder.parent / "other.csv", [header, *rows])
    again = TableFile(path=str(ended.folder.parent / "other.csv"), target="price")
    again.load_state_dict(checkpoint["TableFile"])
    again.setup()
    frame = frame_of(path).drop(columns=["price"])
    assert np.array_equal(again.preparation.transform(frame), first.preparation.transform(frame))
    assert again.card() is None


def test_nothing_of_the_other_rows_is_fitted(tmp_path):
    random = np.random.default_rng(0)
    lines = ["x,kind,part,price"]
    for row in range(90):
        part = ["train", "train", "val", "test"][row % 4]
        kind = "new" if part == "test" else "ab"[row % 2]
        lines.append(f"{random.normal() + 100 * (part != 'train')},{kind},{part},{random.normal()}")
    data = ready(write(tmp_path / "table.csv", lines), split_column="part")
    assert data.spec.feature_names == ("x", "kind=b")
    assert data.tensors["train"][0][:, 0].mean().abs() < 1e-5
    assert data.tensors["test"][0][:, 0].min() > 50
    assert set(data.tensors["test"][0][:, 1].tolist()) == {0.5}


def test_the_constructor_is_the_schema():
    with pytest.raises(Refused, match=r"^data\.columns=.*: "):
        check_arguments(TableFile, {"columns": {"make": "word"}}, "data")
    assert check_arguments(TableFile, {"columns": {2019: "drop"}}, "data")["columns"] == {
        2019: "drop"
    }
    assert spoken(1e6) == "1,000,000"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")
@pytest.mark.parametrize(
    ("name", "target", "task", "used"),
    [
        ("german.csv", "credit_risk", "binary", 20),
        ("phoneme.csv", "nasal", "binary", 5),
        ("auto_imports.csv", "price", "regression", 25),
    ],
)
def test_real_tables(name, target, task, used):
    data = ready(str(SHARED / name), target)
    assert data.spec.task == task
    assert sum(column["used"] for column in data.described) == used
