"""Loggers of services, which are extras:
each keeps options, metrics, figures and the end of a run, resumed ones too.

They run where their package is installed, without a network; docs/extending.md has the commands.
"""

import json
import struct
import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from pytorch_lightning.loggers import Logger

from conftest import SMALL, read_result
from goldilocks.loggers import RunLogger, takers
from goldilocks.loggers.base import title_of

SERVICES = ("wandb", "mlflow", "trackio")


class Foreign(Logger):
    """A library's logger, whose methods have our names and arguments of their own."""

    name, version = "foreign", 0

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.save_dir_ = save_dir

    def log_hyperparams(self, params) -> None:
        pass

    def log_metrics(self, metrics, step=None) -> None:
        pass

    def log_text(self, key, columns, data) -> None:
        raise AssertionError("was called with another logger's arguments")

    log_figure = log_scalars = log_histograms = log_layout = log_network = close = log_text


class Picky(Foreign):
    """A logger that says what is wrong with its options when it is built."""

    def __init__(self, save_dir: str, limit: int = 0) -> None:
        if limit < 1:
            raise ValueError("a limit of 0 is too low")
        super().__init__(save_dir)


@pytest.fixture
def foreign(monkeypatch):
    """Words that allow the loggers above as a package."""
    module = ModuleType("foreign")
    for kind in (Foreign, Picky):
        setattr(module, kind.__name__, kind)
        monkeypatch.setattr(kind, "__module__", "foreign")
    monkeypatch.setitem(sys.modules, "foreign", module)
    return ["packages=[foreign]"]


def test_methods_of_a_librarys_logger_that_have_our_names_are_not_called(command, foreign):
    assert command(*SMALL, *foreign, "+logger.mine._target_=foreign.Foreign").code == 0


def test_a_logger_that_refuses_its_options_when_it_is_built_leaves_no_folder(
    command, foreign, tmp_path
):
    ended = command(*SMALL, *foreign, "+logger.mine._target_=foreign.Picky")
    assert ended.code == 2
    assert "error: logger.mine: a limit of 0 is too low" in ended.err
    assert not list(tmp_path.glob("logs/runs/*"))


def test_a_logger_takes_what_it_has_a_method_of_its_own_for():
    class Texts(RunLogger):
        name, version, log_hyperparams, log_metrics = "texts", 0, None, None

        def log_text(self, tag, text):
            pass

    assert [takers([Texts()], method) != [] for method in ("log_text", "log_figure")] == [
        True,
        False,
    ]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"]])
def test_a_logger_whose_package_is_missing_is_refused_before_there_is_a_folder(
    service, sweep, command, monkeypatch, tmp_path
):
    modules = sys.modules
    monkeypatch.setitem(modules, service, None)
    monkeypatch.delitem(modules, f"goldilocks.loggers.{service}", raising=False)
    ended = command(*sweep, *SMALL, f"logger=[csv,{service}]")
    assert ended.code == 2
    assert f"needs the package {service}" in ended.err
    assert f"pip install -e '.[{service}]'" in ended.err
    assert ended.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["CometLogger", "WandbLogger"])
def test_a_logger_of_lightning_whose_package_is_missing_too(kind, command, monkeypatch, tmp_path):
    from pytorch_lightning.loggers import comet, wandb

    for module, flag in ((comet, "_COMET_AVAILABLE"), (wandb, "_WANDB_AVAILABLE")):
        monkeypatch.setattr(getattr(module, flag), "available", False, raising=False)
    ended = command(*SMALL, f"+logger.mine._target_=pytorch_lightning.loggers.{kind}")
    assert ended.code == 2
    assert "which is not installed" in ended.err
    assert not list(tmp_path.iterdir())


# --- what a service keeps -------------------------------------------------------------------------


def records_in(path):
    """The records of a file of wandb's, which is a log as LevelDB's: pieces in blocks of 32 kB."""
    data, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 0 < (left := -place % 2**15) < 7:
            place += left
            continue
        size, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def read_wandb(folder, monkeypatch):
    """What is in the run folder to be sent: the records of all parts of the run."""
    from wandb.proto import wandb_internal_pb2

    def written(path):
        """Another process writes them, and goes on when wandb's finish has returned."""
        for _ in range(300):
            records = [wandb_internal_pb2.Record.FromString(data) for data in records_in(path)]
            if any(record.WhichOneof("record_type") == "exit" for record in records):
                return records
            time.sleep(0.1)
        raise AssertionError(f"{path}: has no end")

    def read(items):
        return {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}

    found = SimpleNamespace(options={}, curves={}, last={}, pictures=set(), ids=set(), ended=None)
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        found.ids.add(path.stem)
        for record in written(path):
            found.options |= read(record.run.config.update) | read(record.config.update)
            found.last |= read(record.summary.update)
            row = read(record.history.item)
            found.pictures |= {
                name.removesuffix("/_type") for name in row if row[name] == "image-file"
            }
            for name, value in row.items():
                found.curves.setdefault(name, {})[row.get("optimizer_step")] = value
            if record.WhichOneof("record_type") == "exit":
                found.ended = {0: "done"}.get(record.exit.exit_code, "failed")
    assert list(folder.glob("wandb/offline-run-*/files/media/images/**/*.png"))
    return found


def read_mlflow(folder, monkeypatch):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder.parents[1]}/mlflow.db")
    (experiment,) = (e for e in client.search_experiments() if e.name == "goldilocks")
    runs = client.search_runs([experiment.experiment_id])
    (run,) = runs
    names = run.data.metrics
    curves = {
        name: {row.step: row.value for row in client.get_metric_history(run.info.run_id, name)}
        for name in names
    }
    paths = [item.path for item in client.list_artifacts(run.info.run_id, "figures/evaluation")]
    return SimpleNamespace(
        options=run.data.params,
        curves=curves,
        last=names,
        pictures={path.removeprefix("figures/").removesuffix(".png") for path in paths},
        ids={run.info.run_id},
        ended={"FINISHED": "done"}.get(run.info.status, run.info.status),
    )


def read_trackio(folder, monkeypatch):
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import TRACKIO_DIR

    (run,) = SQLiteStorage.get_run_records("goldilocks")
    rows = SQLiteStorage.get_logs("goldilocks", run["name"])
    curves, pictures = {}, set()
    for row in rows:
        for name, value in row.items():
            if isinstance(value, dict):
                pictures.add(name)
            elif isinstance(value, float | int):
                curves.setdefault(name, {})[row["step"]] = value
    last = {name: curve[max(curve)] for name, curve in curves.items()}
    options = SQLiteStorage.get_run_config("goldilocks", run["name"])
    assert list(TRACKIO_DIR.rglob("*.png"))
    return SimpleNamespace(
        options=options, curves=curves, last=last, pictures=pictures, ids={run["id"]}, ended="done"
    )


READ = {"wandb": read_wandb, "mlflow": read_mlflow, "trackio": read_trackio}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_options_curves_figures_and_the_end_and_of_a_resumed_run(
    service, command, monkeypatch, tmp_path
):
    pytest.importorskip(service, reason=f"needs the extra {service}, which dev does not have")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    first = command(*SMALL, "data=breast_cancer", f"logger=[csv,{service}]")
    assert first.code == 0, first.err
    resumed = command(f"resume={first.folder}", "trainer.max_epochs=4")
    assert resumed.code == 0, resumed.err
    result, found = read_result(first.folder), READ[service](first.folder, monkeypatch)
    assert len(found.ids) == 1
    assert found.options["optimizer"] == "nadam"
    assert float(found.options["optimizer.lr"]) == 0.001
    table = np.genfromtxt(first.folder / "metrics.csv", delimiter=",", names=True)
    names = (first.folder / "metrics.csv").read_text().split("\n")[0].split(",")
    written = [row["valloss"] for row in table if not np.isnan(row["valloss"])]
    assert "val/loss" in names
    assert [found.curves["val/loss"][step] for step in sorted(found.curves["val/loss"])] == (
        pytest.approx(written)
    )
    for name, value in result["metrics"].items():
        tag = name if name.startswith("test/") else f"best/{name}"
        assert found.last[tag] == pytest.approx(value), tag
    assert {"evaluation/confusion", "evaluation/calibration"} <= found.pictures
    assert found.ended == "done"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("service", SERVICES)
def test_trials_of_a_sweep_are_at_a_service_too(service, command, monkeypatch, tmp_path):
    pytest.importorskip(service, reason=f"needs the extra {service}, which dev does not have")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["-m", *SMALL, "name=s", f"logger=[csv,{service}]"]
    for seeds in ("0,1", "0,1,2"):  # the second command goes on
        ended = command(*words, f"seed={seeds}")
        assert ended.code == 0, ended.err
    for number in range(3):
        assert read_result(tmp_path / "logs" / "sweeps" / "s" / str(number))["status"] == "done"


@pytest.mark.parametrize(
    ("folder", "title"), [("runs/a", "a"), ("sweeps/first/3", "first/3"), ("a/fold_1", "a/fold_1")]
)
def test_a_run_is_called_as_beside_others(folder, title, tmp_path):
    assert title_of(tmp_path / folder) == title
