"""The command line: help without torch, and every wrong input as one line, exit code 2,
nothing left behind.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, SMALL, read_result
from goldilocks.cli.help import ENDLESS, help_text
from goldilocks.config.options import card, groups, options
from goldilocks.machine.locks import run_lock

# What is written, and the line that is printed (after `error: `; * stands for anything).
WRONG = [
    # options, keys, groups
    (
        "optimizer=nadm",
        "optimizer=nadm: no such option; did you mean nadam? (adadelta, adagrad, *)",
    ),
    ("data=mnsit", "data=mnsit: no such option; did you mean mnist? (breast_cancer, diabetes, *"),
    ("data=poems", "data=poems: no such option; write one of: breast_cancer, diabetes, *"),
    ("data=mnist data.root=nowhere", "data.root=*nowhere: holds no images; *"),
    ("task.output=tanh", "task.output=tanh: is for a regression, and multiclass *"),
    ("data=diabetes task.output=tanh", "task.output=tanh: gives values from -1 to 1, but *"),
    ("regularization=[dropot]", "regularization=dropot: no such option; did you mean dropout? *"),
    ("logger=[tensorboard,wandbb]", "logger=wandbb: no such option; *"),
    ("experiment=nothing", "experiment=nothing: no such option; *"),
    ("optimizer.lrr=0.1", "optimizer.lrr: no such key in optimizer; did you mean optimizer.lr?"),
    (
        "optimizer=sgd optimizer.betas=[0.9,0.99]",
        "optimizer.betas: no such key in the optimizer chosen; write one of: optimizer=adam, *",
    ),
    ("data.path=x.csv", "data.path: no such key in the data chosen; write data=table"),
    ("data.sampler.x=1", "data.sampler.x: no such key; did you mean data.sampler?"),
    ("lr=0.1", "lr: no such key; write optimizer.lr"),
    ("batch_size=64", "batch_size: no such key; write data.batch_size"),
    (
        "data=cars.csv",
        "data=cars.csv: no such option; a file is data=table data.path=cars.csv data.target=COLUMN",
    ),
    (
        "--epochs 5",
        "--epochs: no such option; write key=value, as in trainer.max_epochs=5, or --help",
    ),
    ("model.widht=10", "model.widht: no such key in model; did you mean model.width?"),
    ("optimiser=adam", "optimiser: no such key; did you mean optimizer?"),
    ("sede=1", "sede: no such key; did you mean seed?"),
    ("+optimizer.foo=1", "optimizer.foo: NAdam has no such key; write one of: betas, *"),
    ("+foo=1", "foo: the configuration has no such key; write one of: callbacks, *"),
    ("+callbacks.mine.patience=3", "callbacks.mine: needs an option with a _target_, *"),
    ("~logger", "~logger: cannot be left out; write logger=none, or choose one of: csv, *"),
    ("~model", "model: is missing; the configuration needs it"),
    ("~optimizer.lr", None),  # the class's own default: allowed
    ("model = deep", "*cannot be read; write key=value, *"),
    ("model", "*cannot be read; write key=value, *"),
    ("optimizer.lr=${nothing}", "optimizer.lr: Interpolation key 'nothing' not found"),
    # types
    ("optimizer.lr=fast", "optimizer.lr=fast: a number or auto is expected"),
    ("optimizer.lr=null", "optimizer.lr=null: a number is expected"),
    ("data.batch_size=true", "data.batch_size=true: a whole number is expected, not true or false"),
    ("data.batch_size=3.5", "data.batch_size=3.5: *"),
    (
        "model.width=[1,a]",
        "model.width=[1,a]: a whole number or a list of whole numbers is expected",
    ),
    ("model.activation=rellu", "model.activation=rellu: one of sigmoid, tanh, relu, *"),
    ("trainer.precision=8", "trainer.precision=8: one of 16, 32, 64, 16-mixed, *"),
    ("seed=-1", "seed=-1: must be greater than or equal to 0"),
    ("name=a/b", "name=a/b: *"),
    ("optimizer.lr=0", "optimizer.lr=0: must be greater than 0"),
    (
        "data.batch_size=1 model.norm=batch",
        "data.batch_size=1: BatchNorm has no statistics of a single row; *",
    ),
    ("trainer.fast_dev_run=true", "trainer.fast_dev_run: no such key; write trainer=smoke"),
    ("optimizer.lr=inf", "optimizer.lr=inf: must be a finite number"),
    ("trainer=null", "trainer=null: takes the name of an option; write trainer=NAME, see --help"),
    ("model.width=100000000000", "model.width=100000000000: must be less than or equal to 100000*"),
    (
        "log_dir=/dev/null",
        "log_dir=/dev/null: cannot be written to (Not a directory); write another",
    ),
    (
        "trainer.check_val_every_n_epoch=9",
        "trainer.check_val_every_n_epoch=9: the run ends after 2 epochs, *",
    ),
    ("scheduler=step scheduler.step_size=0", "scheduler: a step fails with ZeroDivisionError: *"),
    ("scheduler=onecycle scheduler.div_factor=0", "scheduler*"),
    # ranges
    ("regularization.dropout=1.5", "regularization.dropout=1.5: must be less than 1"),
    (
        "regularization=l2 regularization.l2=-1",
        "regularization.l2=-1: must be greater than or equal to 0",
    ),
    ("data.batch_size=0", "data.batch_size=0: must be greater than or equal to 1"),
    ("data.val_fraction=1", "data.val_fraction=1: must be less than 1"),
    (
        "data.val_fraction=0.6 data.test_fraction=0.5",
        "data.val_fraction=0.6 and data.test_fraction=0.5 leave no rows *",
    ),
    ("data.test_fraction=0.001", "data.test_fraction=0.001: *"),
    ("trainer.max_epochs=-1", "trainer.max_epochs=-1: must be greater than or equal to 1"),
    (
        "trainer.devices=1000",
        "trainer.devices=1000: this machine has * cores, one for a process; write"
        " trainer.devices=*",
    ),
    ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1: must be greater than 0"),
    ("optimizer.lr=-1", "optimizer.lr=-1: must be greater than 0"),
    (
        "optimizer=nesterov optimizer.momentum=0",
        "optimizer: Nesterov momentum requires a momentum and zero dampening",
    ),
    ("optimizer.betas=[0.9,1.5]", "optimizer: Invalid beta parameter at index 1: 1.5"),
    ("scheduler=onecycle scheduler.pct_start=2", "scheduler.pct_start=2: *"),
    (
        "callbacks.early_stopping.patience=-1",
        "callbacks.early_stopping.patience=-1: must be greater than or equal to 0",
    ),
    # what does not go together
    (
        "objective.metric=val/r2",
        "objective.metric=val/r2: multiclass has no such metric; write one of: train/loss, *",
    ),
    (
        "objective.metric=val/acc",
        "objective.metric=val/acc: no such metric; did you mean val/accuracy?",
    ),
    (
        "objective.metric=test/loss",
        "objective.metric=test/loss: the test set must not decide; write val/loss",
    ),
    ("objective.mode=max", "objective.mode=max: min is better for loss; leave objective.mode out"),
    (
        "callbacks.early_stopping.monitor=val/rmse",
        "callbacks.early_stopping.monitor=val/rmse: multiclass has no *",
    ),
    (
        "scheduler=plateau scheduler.monitor=val/mae",
        "scheduler.monitor=val/mae: multiclass has no such metric; *",
    ),
    (
        "scheduler=plateau scheduler.monitor=null",
        "scheduler.monitor=null: this schedule follows a metric; *",
    ),
    (
        "data.val_fraction=0",
        "objective.metric=val/loss: data.val_fraction=0 leaves no validation set; *",
    ),
    ("loss=mse", "loss=mse: is not for multiclass; write one of: auto, cross_entropy, focal"),
    ("data.task=binary", "data.task=binary: the target has 3 values, not 2; write data.task=auto"),
    (
        "data=diabetes regularization=label_smoothing",
        "regularization.label_smoothing=0.1: smooths class targets, *",
    ),
    (
        "model=linear regularization=dropout",
        "regularization.dropout=0.1: no layer of this model takes it up; *",
    ),
    ("model=pyramid model.depth=2", "model.width=[256,128,64]: 3 values for 2 hidden layers; *"),
    ("model.width=[10,10]", "model.width=[10,10]: 2 values for * hidden layer*"),
    (
        "regularization.dropout=[0.1,0.2,0.3,0.4]",
        "regularization.dropout=[0.1,0.2,0.3,0.4]: 4 values for *",
    ),
    ("trainer.precision=16-mixed trainer=cpu", "trainer.precision=16-mixed: needs a GPU; *"),
    # what must not be built
    (
        "model._target_=os.system",
        "model._target_=os.system: package os is not allowed (allowed: goldilocks, *",
    ),
    (
        "model._target_=torch.os.system",
        "model._target_=torch.os.system: must be a subclass of torch.nn.modules.module.*",
    ),
    ("model._target_=torch.load", "model._target_=torch.load: must be a subclass of *"),
    (
        "model._target_=torch.nn.Linnear",
        "model._target_=torch.nn.Linnear: Linnear is not in torch.nn; did you mean Linear?",
    ),
    (
        "optimizer._target_=torch.nn.Linear",
        "optimizer._target_=torch.nn.Linear: must be a subclass of torch.optim.*",
    ),
    # names, places and options that are none
    ("name=..", "name=..: a name of at most 100 letters, digits, - _ and dots, the first *"),
    (f"name={'a' * 300}", f"name={'a' * 100}... (300 characters): a name of at most 100 *"),
    ("name=a*b", "name=a*b: a name of at most 100 letters, *"),
    ("log_dir=''", "log_dir=: a folder is expected"),
    ("hydra.run.dir=foo", "hydra.run.dir=foo: run folders are made by goldilocks; *"),
    ("hydra.sweep.dir=foo", "hydra.sweep.dir=foo: run folders are made by goldilocks; *"),
    ("model=glob(*)", "model=glob(*): stands for several values; write one, or -m *"),
    ("+experiment=x", "experiment=x: no such option; *"),
    ("data=[digits,wine]", "data=[digits,wine]: takes one option; write data=digits, or *"),
    ("optimizer=[adam]", "optimizer=[adam]: takes one option; write optimizer=adam"),
    # what is advised is right itself
    ("data=[foo,wine]", "data=[foo,wine]: takes one option; write data=wine"),
    ("data=[foo]", "data=[foo]: takes one option; write one of: breast_cancer, *"),
    ("sweep.foo=3", "sweep.foo: no such key in sweep; did you mean sweep.folds?"),
    ("optimizerr@x=adam", "optimizerr@x=adam: no such key; did you mean optimizer?"),
    (
        "scheduler=wsd scheduler.warmup_fraction=0.33333333 scheduler.decay_fraction=0.9",
        "scheduler.decay_fraction=0.9: is more than warmup_fraction=0.33333333 leaves; write at"
        " most 0.6666",
    ),
    ("optimizer=../model/deep", "optimizer=../model/deep: options have names, no paths; *"),
    ("model=deep/", "model=deep: no such option; did you mean deep? *"),
    ("optimizer=3", "optimizer=3: takes the name of an option; *"),
    ("=1", "=1: has no key; write key=value or group=option"),
    ("~", "~: has no key; write key=value or group=option"),
    ("optimizer@model=adam", "optimizer@model=adam: no such key; write optimizer=adam"),
    ("-x", "-x: no such option; write key=value, *"),
    (
        "objective=val/loss",
        "objective: holds several keys; write objective.KEY=VALUE",
    ),
    ("data=table data.path= data.target=y", "data.path=: is empty; write data.path=FILE.csv"),
    (
        "data=table data.path=https://example.com/x.csv data.target=y",
        "data.path=https://example.com/x.csv: is a URL; download the file first, and write *",
    ),
    ("data=table data.path=/dev/null data.target=y", "data.path=/dev/null: is no ordinary file; *"),
    (
        "logger=none logger.tensorboard.x=2",
        "logger.tensorboard.x: no such key in the logger chosen; write logger=tensorboard",
    ),
    # runs that are not there
    ("resume=3", "3: no such run folder; write a folder of logs/runs, or last"),
    ("resume=", "the run is empty; write a folder of logs/runs, or last"),
    ("resume=nowhere", "nowhere: no such run folder; write a folder of logs/runs, or last"),
    ("resume=last", "last: there is no run in logs/runs; train one with: python train.py"),
    ("resume=.", ".: is not a run folder, it has no config.yaml; *"),
]


def matches(line: str, pattern: str) -> bool:
    """Whether a line is the pattern, in which * stands for anything (brackets for themselves)."""
    parts = pattern.split("*")
    position = 0
    for index, part in enumerate(parts):
        found = line.find(part, position)
        if found < 0 or (index == 0 and found != 0):
            return False
        position = found + len(part)
    return pattern.endswith("*") or position == len(line)


def test_the_table_is_long_enough() -> None:
    assert len([line for _, line in WRONG if line]) >= 30


@pytest.mark.parametrize(("words", "line"), WRONG, ids=[words for words, _ in WRONG])
def test_wrong_input_is_one_line_and_leaves_nothing(
    command, tmp_path: Path, words: str, line: str | None
) -> None:
    given = [words] if words == "model = deep" else words.split()
    small = [
        word
        for word in SMALL
        if not words.startswith(("resume", "data=", word.partition("=")[0] + "="))
    ]
    ended = command(*(small if "resume" not in words else []), *given)
    if line is None:
        assert ended.code == 0
        return
    printed = [text for text in ended.err.splitlines() if text.startswith("error: ")]
    assert ended.code == 2
    assert len(printed) == 1, ended.err
    assert len(ended.err.splitlines()) == 1, ended.err
    said = re.sub(r" python -m goldilocks explain \S+ lists them$", "", printed[0])
    assert matches(said.removeprefix("error: "), line), printed[0]
    assert not list(tmp_path.rglob("*"))


def test_a_wrong_trial_refuses_the_whole_sweep(command, tmp_path: Path) -> None:
    ended = command("-m", *SMALL, "optimizer.lr=0.01,-1", "name=s")
    assert ended.code == 2
    assert "optimizer.lr=-1" in ended.err
    assert "none was started" in ended.err
    assert not list(tmp_path.rglob("*"))


def test_full_error_shows_the_traceback(command, monkeypatch: pytest.MonkeyPatch) -> None:
    from goldilocks.errors import Refused

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    for words in (["optimizer.lr=-1"], ["-m", "optimizer.lr=-1,0.1"]):
        with pytest.raises(Refused):
            command(*words)
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


# --- damaged runs ---------------------------------------------------------------------------------


def script(name: str, *words: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / name), *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    words = f"{sys.executable} {ROOT / 'train.py'} --cfg job | head -1"
    done = subprocess.run(
        words, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_a_run_that_is_being_trained_is_not_resumed_beside_it(command) -> None:
    run = command(*SMALL).folder
    before = (run / "result.json").read_text()
    (run / "result.json").write_text(before.replace('"done"', '"running"'))
    with run_lock(run):
        ended = command(f"resume={run}")
    assert ended.code == 2
    assert (
        ended.err
        == f"error: {run}: another process trains in it; wait for its end, or end it first\n"
    )
    assert command(f"resume={run}").code == 0


def test_damaged_runs_are_refused(command, tmp_path: Path) -> None:
    run = command(*SMALL).folder
    other = command(*SMALL, "model.width=7").folder
    config = (run / "config.yaml").read_text()
    best, last = run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt"

    best.write_bytes((other / "checkpoints" / "best.ckpt").read_bytes())
    refused = script("evaluate.py", str(run), cwd=tmp_path)
    assert refused.returncode == 2
    assert "holds the weights of another network" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1

    result = read_result(run)
    for damage, words in [
        (
            lambda: last.write_bytes(last.read_bytes()[:100]),
            "cannot be read as a checkpoint, it is truncated or damaged",
        ),
        (lambda: (run / "result.json").write_text('{"status": '), "its result.json cannot be read"),
        (lambda: (run / "config.yaml").write_text("a: [1"), "its config.yaml cannot be read"),
        (lambda: (run / "config.yaml").unlink(), "is not a run folder, it has no config.yaml"),
    ]:
        (run / "config.yaml").write_text(config)
        (run / "result.json").write_text(json.dumps({**result, "status": "running"}))
        damage()
        ended = command(f"resume={run}")
        assert ended.code == 2
        assert words in ended.err
        assert len(ended.err.splitlines()) == 1


def test_a_strangers_run_folder_cannot_run_code(command, tmp_path: Path) -> None:
    run = command(*SMALL).folder
    text = (run / "config.yaml").read_text()
    evil = text.replace("_target_: goldilocks.models.mlp.MLP", "_target_: os.system").replace(
        "packages: []", "packages: [os]"
    )
    assert evil != text
    (run / "config.yaml").write_text(evil)
    result = read_result(run)
    (run / "result.json").write_text(
        (run / "result.json").read_text().replace(result["status"], "running")
    )
    ended = command(f"resume={run}")
    assert ended.code == 2
    assert "package os is not allowed" in ended.err


# --- help and start -------------------------------------------------------------------------------


def test_help_names_every_option() -> None:
    text = help_text(ENDLESS)
    for group in groups():
        for option in options(group):
            assert f"  {option} " in text
            assert card(group, option) in text


@pytest.mark.parametrize("width", [80, 120])
def test_help_fits_the_terminal_in_two_columns(width: int) -> None:
    text = help_text(width)
    assert max(map(len, text.splitlines())) <= width
    rows = text[text.index("\ndata\n") : text.index("\nAny key")].splitlines()
    starts = [re.match(r"  \S+ +| {9,}", line) for line in rows]
    assert len({found.end() for found in starts if found}) == 1


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--cfg", "job"], ["-sc", "query=bash"]],
    ids=["help", "cfg", "completion"],
)
def test_the_start_does_not_import_torch(words: list[str], tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.argv = ['train.py', *sys.argv[2:]]; path = sys.orig_argv[-1]\n"
        "try: runpy.run_path(ROOT, run_name='__main__')\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        "heavy = {'torch', 'pytorch_lightning', 'sklearn', 'numpy', 'pydantic', 'rich'} &"
        " sys.modules.keys()\n"
        "assert not heavy, heavy"
    ).replace("ROOT", repr(str(ROOT / "train.py")))
    environment = {**os.environ, "COMP_LINE": "train.py optimizer=", "COMP_POINT": "19"}
    done = subprocess.run(
        [sys.executable, "-c", code, "x", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    expected = {"--help": "nadam", "--cfg": "torch.optim.NAdam", "-sc": "optimizer=nadam"}[words[0]]
    assert expected in done.stdout


def test_a_storage_that_cannot_be_opened_leaves_nothing(command, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    ended = command(
        "-m", *SMALL, "seed=0,1", "sweep.sampler=tpe", "sweep.n_trials=2", "sweep.storage=foo://bar"
    )
    assert ended.code == 2
    assert ended.err.startswith("error: sweep.storage=foo://bar: ")
    assert not list(tmp_path.rglob("*"))


def test_a_list_that_names_something_twice_is_refused(command, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,y\n" + "".join(f"{i},{i % 7}.5\n" for i in range(30)))
    table = ["data=table", "data.path=x.csv", "data.target=y"]
    for words, line in (
        ([*table, "data.target=[y,y]"], "data.target: y is named twice"),
        ([*table, "data.path=[x.csv,x.csv]"], "data.path: x.csv is named twice"),
        (
            ["-m", "seed=0,1", "sweep.objectives=[val/loss,val/loss]"],
            "sweep.objectives: val/loss is named twice",
        ),
    ):
        ended = command(*words)
        assert ended.code == 2
        assert line in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_a_run_says_where_its_seconds_went(command) -> None:
    ended = command(*SMALL)
    seconds = read_result(ended.folder)["seconds"]
    assert seconds["total"] >= seconds["train"] + seconds["after"]
    assert "(start " in ended.out
    assert ", figures and test " in ended.out
