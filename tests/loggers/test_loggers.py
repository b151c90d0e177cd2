import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.loggers import Logger
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, get_experiment, list_session_groups
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from conftest import SMALL, read_result
from goldilocks.config.build import build
from goldilocks.loggers import CSVLogger, TensorBoardLogger
from goldilocks.loggers.base import plain
from goldilocks.loggers.tensorboard import ENDED
from goldilocks.runs.assembly import build_trainer
from goldilocks.runs.folder import STATUSES
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import log_start
from goldilocks.training.components import prepare

OPTIONS = {
    "optimizer": "nadam",
    "optimizer.lr": 1e-3,
    "model.width": [64, 32],
    "model.depth": None,
    "trainer.deterministic": True,
}


def read_back(folder):
    """The folder as TensorBoard reads it."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def hparams(folder):
    """What the HPARAMS tab finds: by tag, the plugin's message."""
    content = {
        tag: meta.plugin_data.content for tag, meta in read_back(folder).summary_metadata.items()
    }
    return {
        tag: HParamsPluginData.FromString(content[tag])
        for tag in content
        if tag.startswith("_hparams_")
    }


def scalars(folder, tag):
    return [(event.step, event.value) for event in read_back(folder).Scalars(tag)]


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- TensorBoard ----------------------------------------------------------------------------------


def test_scalars_are_read_back_at_their_steps(tmp_path):
    logger = TensorBoardLogger(str(tmp_path))
    for step in (9, 19, 29):
        logger.log_metrics({"val/loss": 1 / step, "train/loss": 2.0}, step=step)
    logger.close("done")
    assert scalars(tmp_path, "Val/loss") == [
        (step, pytest.approx(1 / step)) for step in (9, 19, 29)
    ]
    assert scalars(tmp_path, "Train/loss") == [(9, 2.0), (19, 2.0), (29, 2.0)]


def test_values_of_several_kinds_are_scalars(tmp_path):
    """An epoch's numbers are one event; a group of curves is the library's business."""
    logger = TensorBoardLogger(str(tmp_path))
    logger.log_metrics(
        {"plain": 1, "tensor": torch.tensor(2.0), "group": {"a": 3.0, "b": 4.0}}, step=5
    )
    logger.close("done")
    assert scalars(tmp_path, "plain") == [(5, 1.0)]
    assert scalars(tmp_path, "tensor") == [(5, 2.0)]
    assert scalars(tmp_path / "group_a", "group") == [(5, 3.0)]


def test_the_event_file_is_all_that_lies_in_the_folder_itself(tmp_path):
    logger = TensorBoardLogger(str(tmp_path))
    logger.log_hyperparams(OPTIONS)
    logger.log_metrics({"val/loss": 1.0}, step=0)
    logger.save()
    logger.finalize("success")
    logger.close("done")
    names = [path.name for path in tmp_path.rglob("*")]
    assert len(names) == 1
    assert names[0].startswith("events.out.tfevents")


def test_text_is_shown_as_it_is_written(tmp_path):
    logger = TensorBoardLogger(str(tmp_path))
    logger.log_text("network", "MLP(\n  (0): Linear\n)")
    logger.close("done")
    (event,) = read_back(tmp_path).Tensors("network/text_summary")
    assert event.tensor_proto.string_val[0].decode() == "    MLP(\n      (0): Linear\n    )"


def test_hyperparameters_are_there_from_the_start(tmp_path):
    """In a killed run too: a start, no end, and no list of metrics,
    which TensorBoard would take for all runs.
    """
    logger = TensorBoardLogger(str(tmp_path))
    logger.log_hyperparams(OPTIONS)
    logger.log_metrics({"best/val/loss": 0.5}, step=3)
    logger.save()
    found = hparams(tmp_path)
    assert set(found) == {"_hparams_/session_start_info"}
    start = found["_hparams_/session_start_info"].session_start_info
    read = {key: getattr(value, value.WhichOneof("kind")) for key, value in start.hparams.items()}
    assert read == {
        "optimizer": "nadam",
        "optimizer.lr": 1e-3,
        "model.width": "[64, 32]",
        "model.depth": "null",
        "trainer.deterministic": True,
    }
    assert scalars(tmp_path, "best/val/loss") == [(3, 0.5)]
    logger.close("done")


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ("done", Status.STATUS_SUCCESS),
        ("pruned", Status.STATUS_SUCCESS),
        ("failed", Status.STATUS_FAILURE),
        ("diverged", Status.STATUS_FAILURE),
        ("interrupted", Status.STATUS_RUNNING),
    ],
)
def test_the_end_tells_the_true_status(status, shown, tmp_path):
    logger = TensorBoardLogger(str(tmp_path))
    logger.log_hyperparams(OPTIONS)
    logger.close(status)
    end = hparams(tmp_path)["_hparams_/session_end_info"].session_end_info
    assert end.status == shown


def test_every_status_of_a_result_has_one_in_tensorboard():
    assert ENDED.keys() == set(STATUSES)


def test_a_resumed_run_hides_what_it_will_write_again(tmp_path):
    killed = TensorBoardLogger(str(tmp_path))
    for step in range(8):
        killed.log_metrics({"val/loss": 100.0 + step}, step=step)
    killed.save()
    (written,) = tmp_path.iterdir()
    written.rename(
        tmp_path / "events.out.tfevents.1000000000.host.1.0"
    )  # of an earlier second: files are read by name
    resumed = TensorBoardLogger(str(tmp_path), resume_step=5)
    for step in range(5, 10):
        resumed.log_metrics({"val/loss": float(step)}, step=step)
    resumed.close("done")
    assert len(list(tmp_path.iterdir())) == 2
    expected = [(step, 100.0 + step) for step in range(5)] + [
        (step, float(step)) for step in range(5, 10)
    ]
    assert sorted(scalars(tmp_path, "Val/loss")) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), (3, 3), (0.5, 0.5), ("a", "a"), (None, "null"), ([1, 2], "[1, 2]")],
)
def test_values_are_what_tensorboard_takes(value, expected):
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


def tab(folder):
    """What TensorBoard shows under HPARAMS, by its own code:
    option names, and by run its status, options, metrics.
    """
    events = (
        EventMultiplexer(size_guidance={"scalars": 0, "tensors": 0})
        .AddRunsFromDirectory(str(folder))
        .Reload()
    )
    context = Context(TBContext(data_provider=MultiplexerDataProvider(events, str(folder))))
    experiment = get_experiment.Handler(
        RequestContext(), context, "", api_pb2.GetExperimentRequest()
    ).run()
    names = {info.name for info in experiment.hparam_infos}
    columns = [api_pb2.ColParams(hparam=name, include_in_result=True) for name in names]
    columns += [api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos]
    asked = api_pb2.ListSessionGroupsRequest(
        slice_size=100,
        allowed_statuses=[status for _, status in Status.items()],
        col_params=columns,
    )
    shown = {}
    for group in (
        list_session_groups.Handler(RequestContext(), context, "", asked).run().session_groups
    ):
        (session,) = group.sessions
        options = {
            name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()
        }
        metrics = {value.name.tag: value.value for value in group.metric_values}
        shown[group.name] = SimpleNamespace(status=session.status, options=options, metrics=metrics)
    return names, shown


def in_its_first_epoch(folder, cfg):
    """What a process has written that is then killed, as long as nothing closes the file:
    the trainer is kept.
    """
    folder.mkdir(parents=True)
    parts = prepare(cfg)
    trainer = build_trainer(parts, folder)
    request = RunRequest(cfg, folder, choices={"data": "iris", "optimizer": "sgd"})
    log_start(trainer, request, parts, resumed=False)
    return trainer


def test_the_tab_has_runs_and_trials_with_options_and_results_and_killed_ones_too(
    command, compose, tmp_path
):
    assert command(*SMALL).code == 0
    varied = ["optimizer=sgd,nadam", "callbacks.early_stopping.patience=3,7", "model.width=8,[9]"]
    assert command("-m", *SMALL, *varied, "name=first").code == 0
    _kept = in_its_first_epoch(
        tmp_path / "logs" / "sweeps" / "first" / "8", compose(*SMALL, "optimizer=sgd")
    )
    names, shown = tab(tmp_path / "logs")
    folders = [path.parent for path in tmp_path.glob("logs/*/**/events.*")]
    folders = [folder for folder in folders if folder.name != "ensemble"]  # it has no options
    assert len(folders) == len(shown) == 1 + 8 + 1
    assert {
        "data",
        "optimizer",
        "optimizer.lr",
        "model.width",
        "seed",
        "callbacks.early_stopping.patience",
    } <= names
    assert "data.name" not in names  # the same as data
    for folder in folders:
        row = shown[folder.relative_to(tmp_path / "logs").as_posix()]
        assert (row.options["data"], row.options["seed"]) == ("iris", 0)
        if folder.name == "8":
            assert (row.status, row.metrics) == (Status.STATUS_UNKNOWN, {})
            assert row.options["optimizer"] == "sgd"
            continue
        result = read_result(folder)
        assert row.status == Status.STATUS_SUCCESS
        assert row.options["optimizer"] == result["choices"]["optimizer"]
        assert row.options["optimizer.lr"] == result["learning_rate"]
        for name, value in result["metrics"].items():
            tag = name if name.startswith("test/") else f"best/{name}"
            assert row.metrics[tag] == pytest.approx(value, rel=1e-6)
    combinations = {
        tuple(
            row.options[key]
            for key in ("optimizer", "callbacks.early_stopping.patience", "model.width")
        )
        for name, row in shown.items()
        if name.startswith("sweeps/") and not name.endswith("/8")
    }
    assert combinations == {(o, p, w) for o in ("sgd", "nadam") for p in (3, 7) for w in (8, "[9]")}


# --- CSV ------------------------------------------------------------------------------------------


def test_a_row_an_epoch_is_on_the_disk_once_it_is_saved(tmp_path):
    logger = CSVLogger(str(tmp_path))
    for step, loss in ((9, 0.5), (19, 0.25)):
        logger.log_metrics({"train/loss": loss, "epoch": step // 10}, step=step)
        logger.save()
        logger.save()  # nothing new
        assert len(rows(tmp_path)) == step // 10 + 1
    assert rows(tmp_path) == [
        {"step": "9", "train/loss": "0.5", "epoch": "0"},
        {"step": "19", "train/loss": "0.25", "epoch": "1"},
    ]


def test_the_best_is_left_out_for_the_rows_tell_it(tmp_path):
    logger = CSVLogger(str(tmp_path))
    logger.log_metrics({"val/loss": 1.0, "best/val/loss": 1.0}, step=0)
    logger.finalize("success")
    assert rows(tmp_path) == [{"step": "0", "val/loss": "1.0"}]


def test_a_metric_that_comes_later_or_not_at_all_leaves_an_empty_cell(tmp_path):
    logger = CSVLogger(str(tmp_path))
    for step, metrics in enumerate(
        [{"train/loss": 3.0}, {"train/loss": 2.0, "val/loss": 5.0}, {"train/loss": 1.0}]
    ):
        logger.log_metrics(metrics, step=step)
        logger.save()
    assert [row["train/loss"] for row in rows(tmp_path)] == ["3.0", "2.0", "1.0"]
    assert [row["val/loss"] for row in rows(tmp_path)] == ["", "5.0", ""]


@pytest.mark.parametrize(
    ("resume_step", "kept"), [(10, [9]), (19, [9]), (20, [9, 19]), (100, [9, 19, 29]), (0, [])]
)
def test_resuming_drops_the_rows_that_will_be_written_again(resume_step, kept, tmp_path):
    before = CSVLogger(str(tmp_path))
    for step in (9, 19, 29):
        before.log_metrics({"val/loss": 100.0 + step}, step=step)
    before.save()
    logger = CSVLogger(str(tmp_path), resume_step=resume_step)
    assert [int(row["step"]) for row in rows(tmp_path)] == kept
    logger.log_metrics({"val/loss": 1.0, "val/f1": 0.5}, step=200)
    logger.log_metrics({"val/loss": 2.0, "val/f1": 0.7}, step=201)
    logger.save()
    assert [int(row["step"]) for row in rows(tmp_path)] == [*kept, 200, 201]
    assert [row["val/loss"] for row in rows(tmp_path)] == [
        *(str(100.0 + step) for step in kept),
        "1.0",
        "2.0",
    ]
    assert rows(tmp_path)[-1]["val/f1"] == "0.7"


def test_resuming_without_a_table_begins_one(tmp_path):
    logger = CSVLogger(str(tmp_path), resume_step=10)
    logger.log_metrics({"val/loss": 1.0}, step=10)
    logger.save()
    assert rows(tmp_path) == [{"step": "10", "val/loss": "1.0"}]


@pytest.mark.parametrize(
    ("name", "kinds"), [("tensorboard", [TensorBoardLogger]), ("csv", [CSVLogger]), ("none", [])]
)
def test_each_option_is_built_into_the_run_folder(name, kinds, tmp_path, compose):
    node = compose(f"logger={name}").logger
    offered = {"save_dir": str(tmp_path), "resume_step": None}
    built = [
        build(dict(option), Logger, f"logger.{key}", offered=offered)
        for key, option in node.items()
    ]
    assert [type(logger) for logger in built] == kinds
    for logger in built:
        logger.log_metrics({"val/loss": 1.0}, step=0)
        logger.save()
        assert any(Path(tmp_path).iterdir())
