"""What a run draws at its end: what the figures show is computed again here,
and nothing else is touched.
"""

import random
import re

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from goldilocks.callbacks import EvaluationFigures, evaluation
from goldilocks.data.base import Table
from goldilocks.data.sources.synthetic import SyntheticData
from goldilocks.figures import charts
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.training import outcome
from goldilocks.training.checkpoints import load_checkpoint, load_weights
from goldilocks.training.components import prepare
from pictures import is_drawn, pixels

QUIET = [
    "trainer=cpu",
    "trainer.max_epochs=3",
    "callbacks.progress_bar=null",
    "callbacks.baselines=null",
    "callbacks.importance=null",
    "logger=none",
]


@pytest.fixture
def draws():
    return np.random.default_rng(0)


@pytest.fixture
def train(compose, tmp_path):
    """Trains in a folder; returns the parts, the result and the folder."""

    def trained(*words, folder=tmp_path / "run", test=True):
        folder.mkdir(parents=True)
        cfg = compose(*QUIET, *words)
        parts = prepare(cfg)
        return parts, run(RunRequest(cfg, folder, test=test), parts), folder

    return trained


@pytest.fixture
def given_to(monkeypatch):
    """What a function of figures.py is called with, call by call."""

    def watched(name):
        calls, draw = [], getattr(charts, name)
        monkeypatch.setattr(charts, name, lambda *given: calls.append(given) or draw(*given))
        return calls

    return watched


def files(folder):
    return {path.name for path in (folder / "figures").glob("*")}


CLASSES, REGRESSION = {"confusion", "precision_recall", "calibration"}, {"predicted", "residuals"}


@pytest.mark.parametrize(
    ("data", "drawn"),
    [
        ("digits", CLASSES | {"most_wrong"}),
        ("breast_cancer", CLASSES),
        ("iris", CLASSES),
        ("diabetes", REGRESSION),
    ],
)
def test_a_run_leaves_figures_in_its_folder_and_in_tensorboard(data, drawn, train):
    parts, result, folder = train(f"data={data}", "logger=[tensorboard,csv]")
    assert files(folder) == {f"{name}.png" for name in {*drawn, "curves"}} | {"most_wrong.txt"}
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0}).Reload()
    assert set(events.Tags()["images"]) == {f"evaluation/{name}" for name in {*drawn, "curves"}}
    for name in drawn:
        (event,) = events.Images(f"evaluation/{name}")
        png = (folder / "figures" / f"{name}.png").read_bytes()
        assert event.encoded_image_string == png
        assert is_drawn(png)
        assert pixels(png).shape == (event.height, event.width, 3)
        assert event.step == result["steps"]
    (text,) = events.Tensors("most_wrong/text_summary")
    written = (folder / "figures" / "most_wrong.txt").read_text(encoding="utf-8")
    assert [
        line[4:] for line in text.tensor_proto.string_val[0].decode().splitlines()
    ] == written.splitlines()
    names = parts.data.spec.class_names
    curves = {tag for tag in events.Tags()["tensors"] if tag.startswith("precision_recall/")}
    assert curves == {
        f"precision_recall/{name}" for name in (names[1:] if len(names) == 2 else names)
    }
    assert {events.summary_metadata[tag].plugin_data.plugin_name for tag in curves} <= {"pr_curves"}


def best_predictions(parts, folder):
    """Predictions of the validation rows by the network that is tested, and the rows."""
    path = folder / "checkpoints" / "best.ckpt"
    load_weights(parts.module, load_checkpoint(path), path)
    x, y = parts.data.tensors["val"]
    with torch.no_grad():
        return parts.module.eval()(x).double().numpy(), y.numpy()


@pytest.mark.parametrize(
    ("data", "model"), [("digits", "shallow"), ("breast_cancer", "shallow"), ("iris", "tabm")]
)
def test_what_is_shown_of_classes_is_so(data, model, train, given_to):
    drawn = given_to("draw_confusion")
    parts, result, folder = train(
        f"data={data}", f"model={model}", "trainer.max_epochs=12", "optimizer.lr=0.02"
    )
    assert result["best_epoch"] < result["epochs"] or data != "digits"
    probabilities, y = best_predictions(parts, folder)
    true = y.reshape(-1).astype(int)
    if probabilities.shape[1] == 1:
        probabilities = np.hstack([1 - probabilities, probabilities])
    said = probabilities.argmax(1)
    ((counts, names, _),) = drawn
    assert np.array_equal(counts, confusion_matrix(true, said))
    assert np.trace(counts) / len(true) == pytest.approx(result["metrics"]["val/accuracy"])
    losses = -np.log(probabilities[range(len(true)), true])
    order = np.argsort(-losses)[:25]
    header, *lines = (
        (folder / "figures" / "most_wrong.txt").read_text(encoding="utf-8").splitlines()
    )
    shown = [re.split(r"  +", line.strip()) for line in lines]
    assert header.split() == ["row", "true", "predicted", "probability", "loss"]
    assert len(shown) == min(25, len(true))
    assert [float(cells[4]) for cells in shown] == pytest.approx(losses[order], abs=1e-3, rel=1e-3)
    table = parts.data.load()
    assert names == parts.data.spec.class_names
    classes = np.unique(table.target)
    by_number = dict(zip(parts.data.row_numbers["val"], range(len(true)), strict=True))
    for number, is_of, taken_for, sure, _ in shown:
        row = by_number[int(number)]
        assert is_of == names[classes.tolist().index(table.target[int(number)])] == names[true[row]]
        assert taken_for == names[said[row]]
        assert float(sure) == pytest.approx(probabilities[row].max(), abs=6e-4)


@pytest.mark.parametrize("model", ["shallow", "tabm"])
def test_what_is_shown_of_a_regression_is_so(model, train, given_to):
    drawn, residuals = given_to("draw_predicted"), given_to("draw_residuals")
    parts, result, folder = train("data=diabetes", f"model={model}", "data.target_scaling=minmax")
    predicted, _ = best_predictions(parts, folder)
    numbers = parts.data.row_numbers["val"]
    true = parts.data.load().target[numbers][:, None]
    ((shown_true, shown, names, _),) = drawn
    assert np.allclose(shown_true, true, rtol=1e-5)
    assert np.allclose(shown, predicted, rtol=1e-5)
    assert names == ["target"]
    assert [value is other for value, other in zip(residuals[0], drawn[0], strict=True)][:2] == [
        True,
        True,
    ]
    assert np.sqrt(np.mean((shown - shown_true) ** 2)) == pytest.approx(
        result["metrics"]["val/rmse"], rel=1e-5
    )
    lines = (folder / "figures" / "most_wrong.txt").read_text(encoding="utf-8").splitlines()
    order = np.argsort(-np.abs(predicted - true)[:, 0])[:25]
    assert [int(line.split()[0]) for line in lines[1:]] == numbers[order].tolist()


def test_pictures_are_those_of_the_rows(train, given_to):
    drawn = given_to("draw_pictures")
    parts, _, folder = train("data=digits", "data.scaling=robust")
    numbers = [
        int(line.split()[0])
        for line in (folder / "figures" / "most_wrong.txt").read_text().splitlines()[1:]
    ]
    expected = parts.data.load().features[numbers, 0] / 16
    ((pictures, captions, wrong, _),) = drawn
    assert np.allclose(pictures, expected, atol=1e-4)
    lines = [
        line.split()
        for line in (folder / "figures" / "most_wrong.txt").read_text().splitlines()[1:]
    ]
    assert [line[1] != line[2] for line in lines] == wrong
    assert [pair[0] for pair in captions] == [f"{line[1]} → {line[2]}" for line in lines]
    assert [float(pair[1]) for pair in captions] == pytest.approx(
        [float(line[3]) for line in lines], abs=6e-3
    )


# --- what is left alone ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["data=iris", "model=deep", "model.norm=batch"], ["data=diabetes", "model=tabm"]]
)
def test_a_run_is_the_same_to_the_bit_without_them(words, train, tmp_path):
    words = [*words, "regularization=dropout"]
    _, with_them, folder = train(*words)
    _, without, other = train(*words, "callbacks.evaluation=null", folder=tmp_path / "other")
    assert files(folder)
    assert not files(other)
    assert with_them["metrics"] == without["metrics"]
    assert any(name.startswith("test/") for name in without["metrics"])
    for name in ("best.ckpt", "last.ckpt"):
        ours, theirs = (load_checkpoint(path / "checkpoints" / name) for path in (folder, other))
        assert all(
            torch.equal(ours["state_dict"][key], theirs["state_dict"][key])
            for key in theirs["state_dict"]
        )


def random_states():
    return [random.getstate()[1], np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]


def test_neither_weights_nor_modes_nor_random_numbers_are_touched(train, tmp_path):
    seen = []
    own = EvaluationFigures.on_train_end

    def watched(self, trainer, module):
        module.network[1].eval()  # as a frozen part would be

        def state():
            weights = {key: value.clone() for key, value in module.state_dict().items()}
            needs = [parameter.requires_grad for parameter in module.parameters()]
            return weights, [part.training for part in module.modules()], needs, random_states()

        before = state()
        own(self, trainer, module)
        seen.append((before, state()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EvaluationFigures, "on_train_end", watched)
        train(
            "data=iris",
            "model=deep",
            "model.norm=batch",
            "regularization=[dropout,ema]",
            "optimizer.lr=0.1",
        )
    ((before, after),) = seen
    assert all(torch.equal(before[0][key], after[0][key]) for key in before[0])
    assert before[1:] == after[1:]
    assert set(after[1]) == {True, False}


@pytest.mark.parametrize("averaging", ["none", "ema", "swa"])
def test_the_best_weights_are_shown_if_there_are_any_else_the_last(averaging, train):
    words = [
        f"regularization={averaging}",
        "data=iris",
        "optimizer.lr=0.5",
        "trainer.max_epochs=20",
    ]
    parts, result, folder = train(*words, test=False)
    path = folder / "checkpoints" / "best.ckpt"
    x, _ = parts.data.tensors["val"]
    best, last = (
        outcome.best_network(parts.module, where)(x) for where in (path, folder / "none.ckpt")
    )
    assert (
        result["best_epoch"] < 15 or averaging != "swa"
    )  # before averaging begins: the checkpoint's mean is empty
    assert torch.equal(last, parts.module.eval().evaluated(x))
    load_weights(parts.module, load_checkpoint(path), path)
    assert torch.equal(best, parts.module.evaluated(x))
    assert not torch.equal(best, last)


# --- where there is little to show ----------------------------------------------------------------


def test_without_a_validation_set_nothing_is_drawn(train, capsys):
    _, result, folder = train("data=iris", "data.val_fraction=0", "objective.metric=train/loss")
    assert (result["status"], files(folder)) == ("done", {"curves.png"})
    assert "figures" not in capsys.readouterr().err


@pytest.mark.parametrize(("data", "drawn"), [("breast_cancer", CLASSES), ("diabetes", REGRESSION)])
def test_two_rows_are_enough(data, drawn, train, capsys):
    fraction = {"breast_cancer": 2 / 569, "diabetes": 2 / 442}[data]
    parts, result, folder = train(f"data={data}", f"data.val_fraction={fraction}")
    assert len(parts.data.tensors["val"][0]) == 2
    assert result["status"] == "done"
    assert files(folder) == {f"{name}.png" for name in {*drawn, "curves"}} | {"most_wrong.txt"}
    assert len((folder / "figures" / "most_wrong.txt").read_text().splitlines()) == 3
    assert "warning" not in capsys.readouterr().err


def table_of(monkeypatch, target, features=6):
    """Makes data=synthetic this target, on features drawn at random."""
    x = np.random.default_rng(1).normal(size=(len(target), features))
    monkeypatch.setattr(SyntheticData, "load", lambda self: Table(x, target))


@pytest.mark.parametrize(("targets", "columns"), [(2, 2), (6, 4)])
def test_several_targets_are_columns_up_to_four(
    targets, columns, train, given_to, draws, monkeypatch
):
    target = draws.normal(size=(100, targets)) * 10.0 ** np.arange(targets)
    table_of(monkeypatch, target)
    drawn = given_to("draw_predicted")
    parts, _, folder = train("data=synthetic")
    ((true, predicted, names, _),) = drawn
    assert np.allclose(true, target[parts.data.row_numbers["val"]][:, :columns], rtol=1e-4)
    assert predicted.shape == (20, columns)
    assert names == [f"target {number}" for number in range(columns)]
    header, first, *_ = (folder / "figures" / "most_wrong.txt").read_text().splitlines()
    assert header.count("true target") == columns
    assert len(first.split()) == 2 + 2 * columns


def test_of_many_classes_the_ten_most_frequent_have_curves(train, given_to, monkeypatch):
    table_of(monkeypatch, np.repeat(np.arange(12), [10, 10, *[20] * 10]))
    drawn = given_to("draw_precision_recall")
    train("data=synthetic")
    assert list(drawn[0][0]) == [str(number) for number in range(2, 12)]


def test_a_class_without_rows_has_no_curve():
    some = outcome.Outcome(np.arange(3), np.array([0, 2, 2]), np.eye(3), np.zeros(3))
    assert [name for name, _, _ in evaluation.curves(some, ("a", "b", "c"))] == ["a", "c"]


def test_only_the_rows_that_are_validated_are_shown(train, given_to):
    drawn = given_to("draw_confusion")
    train("data=digits", "trainer.limit_val_batches=2")
    assert drawn[0][0].sum() == 2 * 32


@pytest.mark.parametrize("precision", ["64", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("data", ["iris", "diabetes"])
def test_every_precision_draws(data, precision, train, capsys):
    _, _, folder = train(f"data={data}", f"trainer.precision={precision}")
    assert len(files(folder)) == {"iris": 5, "diabetes": 4}[data]
    assert "warning" not in capsys.readouterr().err


# --- when nothing is drawn ------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "count"), [([], 0), (["callbacks.evaluation.trials=true"], 5)])
def test_trials_of_a_sweep_draw_only_if_asked(words, count, train, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.yaml").touch()
    _, result, folder = train("data=iris", *words, folder=tmp_path / "sweep" / "0")
    assert (result["status"], len(files(folder))) == ("done", count)


def test_a_run_does_not_fail_with_its_figures(train, monkeypatch, capsys):
    def full(figure):
        raise OSError("no space left on device")

    monkeypatch.setattr(charts, "png_of", full)
    _, result, _ = train("data=iris")
    assert result["status"] == "done"
    assert "test/loss" in result["metrics"]
    assert (
        capsys.readouterr().err
        == "warning: the figures were not drawn: OSError: no space left on device\n"
    )


def test_a_run_that_diverges_at_once_has_none(train, capsys):
    _, result, folder = train("data=diabetes", "optimizer=sgd", "optimizer.lr=1e30")
    assert (result["status"], files(folder)) == ("diverged", {"curves.png"})
    assert "figures" not in capsys.readouterr().err
