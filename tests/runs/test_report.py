import io
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from goldilocks.runs.folder import STATUSES
from goldilocks.runs.printing import metrics_table, print_board, print_result
from goldilocks.sweeps.execution.printing import trials_table
from goldilocks.sweeps.sweep import Trial

DONE = {
    "status": "done",
    "metrics": {
        "train/loss": 0.1,
        "train/accuracy": 0.99,
        "val/accuracy": 0.9,
        "val/loss": 0.25,
        "test/loss": 0.3,
    },
    "best_epoch": 7,
    "epochs": 12,
    "steps": 12345,
    "seconds": {"total": 3.21, "train": 2.5},
    "examples_per_second": 45678.9,
    "num_parameters": 29510,
    "learning_rate": 0.001,
    "error": None,
}
STARTED = {
    "status": "failed",
    "metrics": {},
    "best_epoch": None,
    "epochs": 0,
    "steps": 0,
    "learning_rate": 0.001,
}


def printed(*parts, **kwargs):
    console = Console(file=io.StringIO(), width=200, highlight=False, soft_wrap=True)
    if kwargs:
        print_result(console=console, **kwargs)
    else:
        console.print(*parts)
    return console.file.getvalue()


def lines(text):
    """The words of each line."""
    return [line.split() for line in text.splitlines() if line.strip()]


def result(folder="logs/runs/a", **changes):
    return printed(folder=Path(folder), result={**DONE, **changes})


# --- a run ----------------------------------------------------------------------------------------


def test_the_metrics_have_a_row_each_and_a_column_a_stage():
    assert lines(printed(metrics_table(DONE["metrics"], {}))) == [
        ["metric", "train", "val", "test"],
        ["loss", "0.1000", "0.2500", "0.3000"],
        ["accuracy", "0.9900", "0.9000"],
    ]
    assert lines(printed(metrics_table({"val/r2": -0.5}, {}))) == [
        ["metric", "val"],
        ["r2", "-0.5000"],
    ]


def test_a_run_that_is_done_tells_what_it_took_and_where_it_lies():
    text = result()
    assert "done\n" in text
    for part in (
        "epochs 12 (best 7)",
        "steps 12,345",
        "seconds 3.2",
        "examples/s 45,679",
        "parameters 29,510",
    ):
        assert part in text
    assert str(Path("logs/runs/a")) in text
    assert "resume" not in text


def events(folder):
    """Leaves a file as TensorBoard's logger does."""
    folder.mkdir(parents=True)
    (folder / "events.out.tfevents.1.host.2.0").touch()
    return folder


def test_tensorboard_is_told_of_this_run_or_sweep_alone(tmp_path):
    run = events(tmp_path / "my logs" / "runs" / "a")
    events(tmp_path / "my logs" / "runs" / "b")
    assert f"tensorboard --logdir '{run}'\n" in result(str(run))
    assert "--logdir" not in result(str(tmp_path / "c"))  # no logger wrote for it
    sweep = tmp_path / "sweep"
    for trial in range(41):
        assert "tick" not in printed_board(sweep)
        events(sweep / str(trial))
    assert "of 41 runs TensorBoard shows none at first" in printed_board(sweep)


def printed_board(folder):
    console = Console(file=io.StringIO(), width=200, highlight=False, soft_wrap=True)
    print_board(folder, console)
    return console.file.getvalue()


def test_the_commands_quote_what_a_shell_would_split():
    assert "python train.py resume='my logs/runs/a'\n" in result(
        "my logs/runs/a", status="interrupted"
    )


def test_a_diverged_run_names_the_rate_and_what_to_write():
    text = result(status="diverged", learning_rate=3.5)
    assert "no longer finite after 12 epochs" in text
    assert "optimizer.lr (now 3.5)" in text
    assert "trainer.gradient_clip_val=1" in text


def test_a_failed_run_names_the_error_even_before_the_first_epoch():
    error = {"type": "RuntimeError", "message": "out of memory"}
    text = printed(folder=Path("a"), result={**STARTED, "error": error})
    assert "failed: RuntimeError: out of memory" in text
    assert "traceback.txt" in text
    assert "epochs" not in text


@pytest.mark.parametrize(
    "message", ["expected [batch, features]", "got [bold]", "a [/closing] tag", "no [/]"]
)
def test_brackets_in_a_message_are_printed_as_they_are(message):
    """rich would take them for markup."""
    text = result(status="failed", error={"type": "ValueError", "message": message})
    assert message in text


def test_brackets_in_a_folders_name_are_printed_as_they_are():
    assert "run folder   logs/[red]/runs/a" in result("logs/[red]/runs/a")


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_can_be_printed(status):
    text = result(status=status, error={"type": "ValueError", "message": "x"})
    assert any(line[0].rstrip(":") == status for line in lines(text))


# --- a sweep --------------------------------------------------------------------------------------


def trial(number, value, status="done", metric="val/loss", **varied):
    if status == "waiting":
        return Trial([], varied, OmegaConf.create(), {}, number=number)
    seconds = {"total": 1.5} if status == "done" else {}
    result = {
        "status": status,
        "objective": {"metric": metric, "value": value},
        "epochs": 3,
        "seconds": seconds,
    }
    return Trial([], varied, OmegaConf.create(), {}, number=number, result=result)


def table(trials, mode="min", metric="val/loss"):
    found = lines(printed(trials_table(Path("logs/sweeps/a"), trials, {metric: mode})))
    return found[next(i for i, line in enumerate(found) if line[0] == "trial") :]


@pytest.mark.parametrize(
    ("mode", "order"), [("min", ["2", "0", "3", "1", "4"]), ("max", ["3", "0", "2", "1", "4"])]
)
def test_the_best_trial_comes_first_and_those_without_a_value_last(mode, order):
    trials = [
        trial(0, 0.5),
        trial(1, None, "failed"),
        trial(2, 0.0),
        trial(3, 0.75),
        trial(4, None, "waiting"),
    ]
    assert [row[0] for row in table(trials, mode)[1:]] == order


def test_a_trial_shows_its_value_what_varied_and_how_it_ended():
    trials = [
        trial(0, 0.5, metric="val/f1", model="deep", **{"optimizer.lr": "0.1"}),
        trial(1, None, "failed", model="wide"),
    ]
    assert table(trials, metric="val/f1", mode="max") == [
        ["trial", "val/f1", "model", "optimizer.lr", "status", "epochs", "seconds"],
        ["0", "0.5", "deep", "0.1", "done", "3", "1.5"],
        ["1", "wide", "failed", "3"],
    ]


def test_lists_among_the_varied_values_are_shown_as_they_are():
    """rich would take [dropout,l2] for markup and print nothing."""
    trials = [trial(0, 0.5, regularization="[dropout,l2]"), trial(1, 0.6, regularization="[l1]")]
    assert [row[2] for row in table(trials)[1:]] == ["[dropout,l2]", "[l1]"]
