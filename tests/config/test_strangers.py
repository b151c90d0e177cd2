"""What a stranger's run folder, sweep folder, options or checkpoint may not do:
run code, or reach out of the folder.

ROUTES is the table of docs/security.md:
each plants what a stranger could have written, and uses it as a user would.
"""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from conftest import ROOT, read_result
from finished import command_of, finished
from goldilocks.config import places, privacy, strangers
from goldilocks.config.build import find_class
from goldilocks.errors import Refused
from goldilocks.runs import environment as environment_module
from goldilocks.runs.environment import environment as current_environment
from goldilocks.sweeps.search import study

SECRET = "what-only-this-machine-knows"
EVIL = """
import os, pathlib, torch
pathlib.Path(os.environ["MARK"]).touch()
from pytorch_lightning import Callback
class Net(torch.nn.Module):
    def __init__(self, input_shape, num_outputs):
        super().__init__()
        self.layer = torch.nn.Linear(4, num_outputs)
    def forward(self, x):
        return self.layer(x)
class Watcher(Callback):
    def __init__(self, **_):
        pass
"""
TINY = ["data=iris", "trainer=cpu", "trainer.max_epochs=1", "callbacks=none", "logger=none"]
GRID = ["-m", *TINY, "name=s", "seed=0,1"]
LEARNING = ["-m", *TINY, "name=s", "sweep.n_trials=2", "optimizer.lr=interval(0.001,0.1)"]


class Marks:
    """What a pickle runs when it is loaded."""

    def __reduce__(self):
        return (os.mkdir, (os.environ["MARK"],))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run that has ended after its last epoch, so that it can go on for longer."""
    return finished(tmp_path_factory.mktemp("trained"), "data=iris", "logger=csv")


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Where sweep folders are kept for the next test that needs them."""
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture
def world(tmp_path: Path, command, monkeypatch, trained, kept) -> SimpleNamespace:
    """A user's folder with the run in `logs/runs/theirs`, somebody else's module beside it,
    and what is not to change.
    """
    mark, outside = tmp_path / "mark", tmp_path / "outside"
    monkeypatch.setenv("MARK", str(mark))
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil_of_stranger.py").write_text(EVIL)
    sys.modules.pop("evil_of_stranger", None)
    outside.mkdir()
    (outside / "victim.yaml").write_text("mine\n")
    (outside / "last.ckpt").write_text("mine\n")
    run = tmp_path / "logs" / "runs" / "theirs"
    shutil.copytree(trained, run)
    at = SimpleNamespace(
        tmp=tmp_path, run=run, sweep=tmp_path / "logs" / "sweeps" / "s", outside=outside, mark=mark
    )
    at.command, at.monkeypatch = command, monkeypatch
    at.resume = lambda: at.command(f"resume={run}", "trainer.max_epochs=3")
    at.report = lambda: command_of("report")(monkeypatch, at.sweep)
    at.swept = lambda words: swept(words, at, kept / re.sub(r"\W", "_", " ".join(words)))
    return at


def swept(words: list[str], world: SimpleNamespace, copy: Path) -> None:
    """Runs a sweep, or takes the folder of the same one from a test before."""
    if not copy.exists():
        ended = world.command(*words)
        assert ended.code == 0, ended.err
        shutil.copytree(world.sweep, copy)
    else:
        shutil.copytree(copy, world.sweep)


def edit(path: Path, change) -> None:
    """Changes a file of JSON or YAML."""
    text = path.read_text()
    content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    change(content)
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))


def set_model(content: dict) -> None:
    content["model"] = {"_target_": "evil_of_stranger.Net"}
    content["packages"] = ["evil_of_stranger"]


def option(world, name: str, text: str) -> Path:
    """Others' options in a folder for --config-dir, of which `name` is a file."""
    path = world.tmp / "options" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return world.tmp / "options"


def with_options(world, name: str, text: str, *words: str):
    folder = option(world, name, text)
    return world.command("--config-dir", str(folder), *TINY, *(words or ["experiment=theirs"]))


GLOBAL = "# @package _global_\n"


# --- the routes -----------------------------------------------------------------------------------


def packages_of_a_run(world):
    edit(world.run / "config.yaml", set_model)
    return world.resume()


def place_of_a_callback(world):
    def change(content):
        content["callbacks"]["last_checkpoint"]["dirpath"] = str(world.outside)

    edit(world.run / "config.yaml", change)
    return world.resume()


def place_of_a_callback_by_a_reference(world):
    node = {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "filename": "${resume}"}

    def change(content):
        content["callbacks"]["theirs"] = {**node, "dirpath": f"{world.run}/x", "monitor": None}
        content["resume"] = str(world.outside / "new")

    edit(world.run / "config.yaml", change)
    return world.resume()


def place_of_a_logger(world):
    edit(world.run / "config.yaml", lambda c: c["logger"]["csv"].update(save_dir="outside"))
    return world.resume()


def place_of_a_library_logger(world):
    node = {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": "outside", "name": "n"}
    edit(world.run / "config.yaml", lambda c: c["logger"].update(theirs=node))
    return world.resume()


def file_behind_a_link(world):
    (world.run / "overrides.yaml").unlink()
    (world.outside / "victim.yaml").write_text("- seed=1\n")
    (world.run / "overrides.yaml").symlink_to(world.outside / "victim.yaml")
    return world.resume()


def folder_behind_a_link(world):
    shutil.copytree(world.run / "checkpoints", world.outside, dirs_exist_ok=True)
    shutil.rmtree(world.run / "checkpoints")
    (world.run / "checkpoints").symlink_to(world.outside)
    return world.resume()


def secret_of_the_environment(world):
    edit(world.run / "config.yaml", lambda c: c.update(name="${oc.env:SECRET}"))
    return world.resume()


def words_of_a_run(world):
    """`rerun` with other words composes those of the run again."""
    words = ["packages=[evil_of_stranger]", "+callbacks.x._target_=evil_of_stranger.Watcher"]
    known = yaml.safe_load((world.run / "config.yaml").read_text())
    watched = {"callbacks": {**known["callbacks"], "x": {"_target_": "evil_of_stranger.Watcher"}}}
    edit(world.run / "config.yaml", lambda c: c.update(watched))
    quiet = [
        "trainer=cpu",
        "trainer.max_epochs=2",
        "callbacks.progress_bar=null",
        "callbacks.baselines=null",
    ]
    quiet += ["callbacks.evaluation=null", "data=iris", "logger=csv"]
    log_dir = [f"log_dir='{known['log_dir']}'"]
    (world.run / "overrides.yaml").write_text(yaml.safe_dump([*quiet, *log_dir, *words]))
    return command_of("rerun")(world.monkeypatch, world.run, "seed=1")


def place_of_a_rerun(world):
    edit(world.run / "config.yaml", lambda c: c.update(log_dir=str(world.outside)))
    return command_of("rerun")(world.monkeypatch, world.run)


def pickle_as_a_checkpoint(world):
    (world.run / "checkpoints" / "last.ckpt").write_bytes(pickle.dumps(Marks()))
    return world.resume()


def file_that_a_checkpoint_calls_outdated(world):
    """The library removes what its callback's state calls the best so far,
    when another is better.
    """
    place = f"{world.run}/checkpoints"
    node = {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "monitor": "val/loss"}
    edit(world.run / "config.yaml", lambda c: c["callbacks"].update(theirs=node))
    path = world.run / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    way = f"{place}/../../../../outside/last.ckpt"
    from pytorch_lightning.callbacks import ModelCheckpoint

    key = ModelCheckpoint(dirpath=place, monitor="val/loss").state_key
    worst = torch.tensor(9e9)
    state["callbacks"][key] = {
        "monitor": "val/loss",
        "dirpath": place,
        "current_score": worst,
        "best_model_score": worst,
        "best_model_path": way,
        "last_model_path": "",
        "best_k_models": {way: worst},
        "kth_best_model_path": way,
        "kth_value": worst,
    }
    torch.save(state, path)
    return world.resume()


def pickle_in_a_study(world):
    world.swept([*LEARNING, "sweep.sampler=cmaes"])
    journal = world.sweep / "study.journal"
    planted = {"cma:optimizer:0": pickle.dumps(Marks()).hex()}
    entry = {"op_code": 9, "worker_id": "x", "trial_id": 0, "system_attr": planted}
    lines = journal.read_text().splitlines()
    ended = next(at for at, line in enumerate(lines) if json.loads(line)["op_code"] == 6)
    journal.write_text("\n".join([*lines[:ended], json.dumps(entry), *lines[ended:], ""]))
    study.study_in.cache_clear()  # as in a new process
    more = [word.replace("n_trials=2", "n_trials=3") for word in LEARNING]
    ended = world.command(*more, "sweep.sampler=cmaes")
    assert ended.code == 0, ended.err  # it learns from the trials instead
    return ended


def packages_of_a_trial(world):
    world.swept(GRID)
    shutil.rmtree(world.sweep / "1")
    edit(world.sweep / "trials" / "1.json", lambda c: set_model(c["config"]))
    return world.command(*GRID)


def choices_of_a_trial(world):
    world.swept(GRID)
    for number in (0, 1):
        path = world.sweep / "trials" / f"{number}.json"
        edit(path, lambda c: c["choices"].update(model="../../../../outside/victim"))
    (world.sweep / "model").mkdir()
    return world.report()


def place_of_a_trial(world):
    world.swept(GRID)
    shutil.rmtree(world.sweep / "1")
    node = {"_target_": "goldilocks.callbacks.LastCheckpoint", "dirpath": str(world.outside)}
    path = world.sweep / "trials" / "1.json"
    edit(path, lambda c: c["config"]["callbacks"].update(theirs=node))
    return world.command(*GRID)


def report_behind_a_link(world):
    world.swept(GRID)
    shutil.rmtree(world.sweep / "experiment")
    (world.sweep / "experiment").symlink_to(world.outside)
    return world.report()


def database_of_a_study(world):
    world.swept(GRID)
    shutil.rmtree(world.sweep / "1")
    known = {"name": "s", "storage": f"sqlite:///{world.outside}/new.db", "pruner": "none"}
    known |= {"modes": {"val/loss": "min"}, "min_epochs": 1, "reduction_factor": 3}
    (world.sweep / "study.json").write_text(json.dumps({**known, "sampler": "grid"}))
    return world.command(*GRID)


def options_that_a_sweep_has_frozen(world):
    words = [*LEARNING, "sweep.sampler=tpe"]
    world.swept(words)
    found = next(path for path in world.sweep.glob("conf/*/train.yaml"))
    edit(found, lambda c: c.update(packages=["evil_of_stranger"], log_dir=str(world.outside)))
    (found.parent / "model" / "shallow.yaml").write_text("_target_: evil_of_stranger.Net\n")
    return world.command(*(word.replace("n_trials=2", "n_trials=3") for word in words))


def options_with_packages(world):
    text = f"{GLOBAL}packages: [evil_of_stranger]\nmodel: {{_target_: evil_of_stranger.Net}}\n"
    return with_options(world, "experiment/theirs.yaml", text)


WATCH = "x:\n  _target_: evil_of_stranger.Watcher\n"


def options_with_callbacks_of_hydra(world):
    text = f"{GLOBAL}hydra:\n  callbacks:\n    {WATCH.replace(chr(10), chr(10) + '    ')}"
    return with_options(world, "experiment/theirs.yaml", text)


def options_in_a_place_of_hydra(world):
    return with_options(world, "experiment/theirs.yaml", f"# @package hydra.callbacks\n{WATCH}")


def options_moved_to_a_place_of_hydra(world):
    option(world, "data/theirs.yaml", WATCH)
    text = f"{GLOBAL}defaults:\n  - /data@hydra.callbacks: theirs\n"
    return with_options(world, "experiment/theirs.yaml", text)


def options_of_hydras_log(world):
    handler = "handlers: {x: {(): evil_of_stranger.Watcher}}\nversion: 1\nroot: {handlers: [x]}\n"
    option(world, "hydra/job_logging/theirs.yaml", handler)
    text = f"{GLOBAL}defaults:\n  - override /hydra/job_logging: theirs\n"
    return with_options(world, "experiment/theirs.yaml", text)


def options_by_a_path(world):
    (world.tmp / "elsewhere.yaml").write_text("packages: [evil_of_stranger]\n")
    text = f"{GLOBAL}defaults:\n  - ../../elsewhere@_global_\n"
    return with_options(world, "experiment/theirs.yaml", text)


def options_with_a_place(world):
    text = f"{GLOBAL}callbacks: {{last_checkpoint: {{dirpath: {world.outside}}}}}\n"
    folder = option(world, "experiment/theirs.yaml", text)
    words = [word for word in TINY if word != "callbacks=none"]
    return world.command("--config-dir", str(folder), *words, "experiment=theirs")


def options_with_a_log_dir(world):
    text = f"{GLOBAL}log_dir: {world.outside}\n"
    return with_options(world, "experiment/theirs.yaml", text)


def options_with_a_database(world):
    text = f"{GLOBAL}sweep: {{storage: 'sqlite:///{world.outside}/new.db', pruner: asha}}\n"
    return with_options(
        world, "experiment/theirs.yaml", text, "-m", "name=s", "seed=0,1", "experiment=theirs"
    )


def options_with_a_secret(world):
    return with_options(world, "experiment/theirs.yaml", f"{GLOBAL}name: ${{oc.env:SECRET}}\n")


def conf_of_others(world):
    shutil.copytree(ROOT / "conf", world.tmp / "conf_of_others")
    edit(
        world.tmp / "conf_of_others" / "train.yaml",
        lambda c: c.update(packages=["evil_of_stranger"]),
    )
    words = [*TINY, "model._target_=evil_of_stranger.Net", "~model.hidden"]
    return world.command("--config-path", str(world.tmp / "conf_of_others"), *words)


ROUTES = {
    "run": [
        packages_of_a_run,
        place_of_a_callback,
        place_of_a_callback_by_a_reference,
        place_of_a_logger,
        place_of_a_library_logger,
        file_behind_a_link,
        folder_behind_a_link,
        secret_of_the_environment,
        words_of_a_run,
        place_of_a_rerun,
    ],
    "checkpoint": [pickle_as_a_checkpoint, file_that_a_checkpoint_calls_outdated],
    "sweep": [
        pickle_in_a_study,
        packages_of_a_trial,
        choices_of_a_trial,
        place_of_a_trial,
        report_behind_a_link,
        database_of_a_study,
        options_that_a_sweep_has_frozen,
    ],
    "--config-dir": [
        options_with_packages,
        options_with_callbacks_of_hydra,
        options_in_a_place_of_hydra,
        options_moved_to_a_place_of_hydra,
        options_of_hydras_log,
        options_by_a_path,
        options_with_a_place,
        options_with_a_log_dir,
        options_with_a_database,
        options_with_a_secret,
        conf_of_others,
    ],
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "route", [pytest.param(route, id=route.__name__) for of in ROUTES.values() for route in of]
)
def test_no_stranger_runs_code_or_reaches_out_of_the_folder(route, world, capfd):
    before: dict[str, bytes] = {}
    planted = world.command

    def last(*words):
        before.clear()
        before.update(contents(world.outside))
        return planted(*words)

    world.command = last
    before.update(contents(world.outside))
    report = world.report
    world.report = lambda: (before.update(contents(world.outside)), report())[1]
    ended = route(world)
    written = ended.err if isinstance(ended, SimpleNamespace) else capfd.readouterr().err
    assert not world.mark.exists(), "code of a stranger has run"
    assert contents(world.outside) == before
    texts = [data for data in contents(world.tmp / "logs").values() if SECRET.encode() in data]
    assert not texts, "what this machine knows has been written into a folder"
    assert "Traceback" not in written


def test_the_table_has_at_least_twelve_routes():
    assert sum(map(len, ROUTES.values())) >= 12


def test_the_names_of_hydra_and_optuna_that_are_used_are_there():
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from optuna.samplers import CmaEsSampler

    assert callable(ConfigLoaderImpl._load_single_config)
    for name in ("_restore_optimizer", "_init_optimizer", "_get_solution_trials"):
        assert callable(getattr(CmaEsSampler, name))


# --- what stays allowed ---------------------------------------------------------------------------


def test_cmaes_made_again_proposes_what_one_that_was_kept_proposes():
    """Its mean and its covariance after some generations are those of Optuna's own,
    which has kept its state.
    """
    import optuna
    from optuna._transform import _SearchSpaceTransform

    from goldilocks.sweeps.search.evolution import ReplayedCmaEs

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.CmaEsSampler(seed=1))
    study.optimize(
        lambda t: (t.suggest_float("x", 0, 1) - 0.3) ** 2 + t.suggest_float("y", 1e-3, 1, log=True),
        n_trials=40,
    )
    kept = study.sampler._restore_optimizer(study.get_trials())
    again = ReplayedCmaEs(seed=2)
    space = again.infer_relative_search_space(study, study.trials[-1])
    again._asked = study.direction, space
    told = [trial for trial in study.trials if trial.system_attrs.get("cma:generation", -1) >= 0]
    mine = again._restore_optimizer(
        [trial for trial in told if trial.system_attrs["cma:generation"] < kept.generation]
    )
    assert mine.generation == kept.generation > 3
    assert mine._mean == pytest.approx(kept._mean, rel=1e-9)
    assert mine._C.ravel() == pytest.approx(kept._C.ravel(), rel=1e-6)
    assert len(_SearchSpaceTransform(space).bounds) == 2


def test_a_study_of_cmaes_holds_no_pickle_and_is_asked_the_same_again(tmp_path):
    from goldilocks.sweeps.search.settings import SweepSettings
    from goldilocks.sweeps.search.space import Dimension, Space
    from goldilocks.sweeps.search.study import create_study

    space = Space([], [Dimension(n, n, low=0.0, high=1.0) for n in ("a", "b")])
    known = yaml.safe_load((ROOT / "conf" / "sweep" / "default.yaml").read_text())
    settings = SweepSettings(**{**known, "sampler": "cmaes", "n_trials": 20})
    proposed = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        study = create_study(tmp_path / name, settings, {"val/loss": "min"}, 3)
        for _ in range(16):
            number, chosen = study.ask(space)
            proposed.append(chosen)
            study.study.tell(number, (float(chosen["a"]) - 0.3) ** 2 + float(chosen["b"]))
        assert "cma:optimizer" not in (tmp_path / name / "study.journal").read_text()
    assert proposed[:16] == proposed[16:]


def test_links_and_places_inside_a_folder_are_allowed(tmp_path: Path):
    (tmp_path / "wandb" / "run-1").mkdir(parents=True)
    (tmp_path / "wandb" / "latest").symlink_to("run-1")
    assert strangers.sealed(tmp_path) == tmp_path
    inside = {"logger": {"csv": {"save_dir": str(tmp_path / "wandb")}}}
    servers = {"logger": {"mlflow": {"tracking_uri": "https://runs.example.org"}}}
    watch = {"callbacks": {"stop": {"monitor": "val/loss", "mode": "min", "filename": "{epoch}"}}}
    for content in (inside, servers, watch):
        strangers.refuse_paths(content, "config.yaml", tmp_path, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("save_dir", "here"),
        ("dirpath", "/tmp"),
        ("filename", "../x"),
        ("filename", "/x"),
        ("save_dir", "~/x"),
        ("tracking_uri", "file:x"),
        ("tracking_uri", "sqlite:///x.db"),
        ("dirpath", "s3://bucket/x"),
        ("dirpath", r"C:\x"),
        ("dirpath", r"\\server\x"),
        ("exclude_batches_path", "x"),
        ("artifacts", "x"),
        ("filename", "${name}"),
        ("tracking_uri", "https://${name}"),
    ],
)
def test_a_place_outside_is_refused(key, value, tmp_path: Path):
    for where in ({"a": {key: value}}, {"a": {"b": [{key: value}]}}):
        with pytest.raises(Refused, match="leads out of the run folder"):
            strangers.refuse_paths({"logger": where}, "config.yaml", tmp_path, "logs")


def test_what_conf_says_itself_is_allowed(tmp_path: Path, monkeypatch):
    conf = tmp_path / "conf"
    (conf / "logger").mkdir(parents=True)
    (conf / "logger" / "mlflow.yaml").write_text("x: {save_dir: /scratch, name: '${oc.env:ME}'}\n")
    monkeypatch.setattr(strangers, "own_conf", lambda: [conf])
    content = {"logger": {"x": {"save_dir": "/scratch", "name": "${oc.env:ME}"}}}
    strangers.refuse_paths(content, "config.yaml", tmp_path, None)
    strangers.refuse_references(content, "config.yaml")
    other = {"logger": {"x": {"dirpath": "/scratch"}}}
    with pytest.raises(Refused):
        strangers.refuse_paths(other, "config.yaml", tmp_path, None)


def with_store(log_dir: str, filled: bool) -> dict:
    """What a run with logger=mlflow has in config.yaml, and a trial in its file."""
    known = yaml.safe_load((ROOT / "conf" / "logger" / "mlflow.yaml").read_text())["mlflow"]
    said = {k: v.replace("${log_dir}", log_dir) if filled else v for k, v in known.items()}
    return {"log_dir": log_dir, "logger": {"mlflow": said}}


@pytest.mark.parametrize("filled", [True, False])
def test_the_store_of_an_option_of_conf_is_allowed_where_the_run_lies(filled, tmp_path: Path):
    for kind in ("runs/a", "sweeps/s/0"):
        config = with_store(str(tmp_path / "mine"), filled)
        strangers.judged(config, "config.yaml", tmp_path / "mine" / kind)
    strangers.judged(with_store("logs", filled), "config.yaml", tmp_path / "a")


@pytest.mark.parametrize("filled", [True, False])
@pytest.mark.parametrize("log_dir", ["elsewhere", "${name}", None])
def test_the_store_of_an_option_of_conf_is_refused_in_another_log_dir(
    log_dir, filled, tmp_path: Path
):
    said = log_dir and str(tmp_path / log_dir) if log_dir == "elsewhere" else log_dir
    config = with_store(said or "logs", filled) | {"log_dir": said}
    with pytest.raises(Refused, match="leads out of the run folder"):
        strangers.judged(config, "config.yaml", tmp_path / "logs" / "runs" / "a")


def test_a_trial_keeps_the_value_of_a_variable_that_its_command_names(
    command, tmp_path, monkeypatch
):
    monkeypatch.setenv("DROPPED", "0.25")
    rate = "model.dropout='${oc.decode:${oc.env:DROPPED}}'"
    ended = command(*GRID, "regularization=dropout", rate, "optimizer.lr=0.01")
    assert ended.code == 0, ended.err
    known = json.loads((tmp_path / "logs/sweeps/s/trials/0.json").read_text())
    assert known["config"]["model"]["dropout"] == 0.25


# --- targets, processes ---------------------------------------------------------------------------


def test_a_module_is_imported_only_for_a_class_that_it_has(tmp_path: Path, monkeypatch):
    """A script of one's own package runs when it is imported."""
    mark = tmp_path / "mark"
    package = tmp_path / "mine_of_user"
    package.mkdir()
    (package / "__init__.py").write_text("from mine_of_user.nets import Net as Renamed\n")
    (package / "nets.py").write_text("from torch import nn\nclass Net(nn.Module):\n    pass\n")
    script = f"import pathlib\nfrom torch.nn import Linear\npathlib.Path({str(mark)!r}).touch()\n"
    (package / "clean_up.py").write_text(script)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("clean_up.Net", "clean_up.Linear", "clean_up.Net.Inner", "clean_up", "x.Y"):
        node = {"_target_": f"mine_of_user.{name}"}
        with pytest.raises(Refused):
            find_class(node, nn.Module, "model", ["mine_of_user"])
        assert not mark.exists(), name
    for name in ("nets.Net", "Renamed"):
        node = {"_target_": f"mine_of_user.{name}"}
        assert find_class(node, nn.Module, "model", ["mine_of_user"]).__name__ == "Net"
    with pytest.raises(Refused, match="no such module"):
        find_class({"_target_": "torch"}, nn.Module, "model")


def test_a_process_imports_nothing_from_the_current_directory(tmp_path: Path):
    """It may be a run folder of somebody else's."""
    from goldilocks.runs.peers import environment

    (tmp_path / "goldilocks").mkdir()
    (tmp_path / "goldilocks" / "__init__.py").write_text("raise SystemExit('theirs')")
    words = [sys.executable, "-m", "goldilocks.config.places"]
    done = subprocess.run(words, env=environment(1), cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(places.ROOT) in environment(1)["PYTHONPATH"]  # where packages of the user's are


# --- secrets --------------------------------------------------------------------------------------


def test_the_password_of_a_database_is_in_no_file(command, tmp_path: Path, monkeypatch):
    import optuna

    address = "postgresql://me:hunter2@host/db?password=hunter2"
    create, opened = optuna.create_study, []

    def create_study(storage, **options):
        opened.append(storage)
        return create(storage=f"sqlite:///{tmp_path}/study.db", **options)

    monkeypatch.setattr(optuna, "create_study", create_study)
    connect = optuna.storages.get_storage

    def get_storage(storage):
        """Without the driver of the database."""
        is_there = "postgresql" not in str(storage)
        return connect(storage if is_there else f"sqlite:///{tmp_path}/study.db")

    monkeypatch.setattr(optuna.storages, "get_storage", get_storage)
    words = [*GRID, "sweep.pruner=asha", f"sweep.storage='{address}'"]
    ended = command(*words)
    assert ended.code == 0, ended.err
    assert opened and set(opened) == {address}
    folder = tmp_path / "logs/sweeps/s"
    files = {**contents(folder), "err": ended.err.encode(), "out": ended.out.encode()}
    assert not [name for name, data in files.items() if b"hunter2" in data]
    assert b"postgresql://me:***@host" in files[str(folder / "study.json")]
    assert "hunter2" not in os.environ.get("GOLDILOCKS_STORAGE", "")
    ended = command(*[word.replace("me:", "you:") for word in words])
    assert ended.code == 2 and "hunter2" not in ended.err
    assert command(*words).code == 0  # the same command goes on


def test_a_database_that_cannot_be_opened_does_not_print_its_password(command):
    words = ["sweep.pruner=asha", "sweep.storage='nosuch://me:hunter2@host/db'"]
    ended = command(*GRID, *words)
    assert ended.code == 2 and "hunter2" not in ended.err


@pytest.mark.parametrize(
    "text",
    [
        "a://u:PW@h/d",
        "a://:PW@h",
        "a://h/d?password=PW&x=1",
        "a://u:P%40/W:x@h/d".replace("P%40/W:x", "PW"),
    ],
)
def test_passwords_of_addresses_are_masked(text):
    assert "PW" not in privacy.without_passwords(f"x.y='{text}' z")


def change(name: str, line: str) -> str:
    return f"diff --git a/{name} b/{name}\n--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-old\n+{line}\n"


SAFE = [
    ("src/goldilocks/runs/run.py", "x = tokens[0]"),
    ("src/mine/tokenizer.py", "self.password_field = None"),
    ("conf/train.yaml", "seed: 1"),
    ("docs/security.md", "keep your password out of it"),
]
SECRETS = [
    (".env", "A=1"),
    ("prod.env", "A=1"),
    ("my secrets.yaml", "a: 1"),
    ("keys/server.pem", "x"),
    ("credentials.json", "{}"),
    ("conf/api_key.txt", "x"),
    ("src/mine/net.py", 'API_KEY = "0123456789abcdef"'),
    ("src/mine/net.py", 'os.environ["WANDB_API_KEY"] = "0123456789abcdef"'),
    ("conf/logger/x.yaml", "password: correcthorse"),
    ("notes.txt", "-----BEGIN RSA PRIVATE KEY-----"),
    ("conf/train.yaml", "storage: postgresql://me:pw@host/db"),
    ("a.py", "x = 'AKIAABCDEFGHIJKLMNOP'"),
    ("a.py", "hub = 'hf_abcdefghijklmnopqrstuvwx'"),
]


def test_changes_of_files_that_look_like_secrets_are_left_out():
    every = [*SAFE, *SECRETS]
    kept, left_out = privacy.shareable("".join(change(*each) for each in every))
    assert kept == "".join(change(*each) for each in SAFE)
    assert left_out == [name for name, _ in SECRETS]


def test_uncommitted_changes_are_kept_unless_they_are_not_to_be(command, monkeypatch):
    current_environment.cache_clear()
    known = {"commit": "abc", "diff": "diff --git a/x b/x\n", "left_out": []}
    monkeypatch.setattr(environment_module, "git_state", lambda: known)
    hashes = set()
    for words, kept in (([], known["diff"]), (["record_changes=false"], None)):
        ended = command(*TINY, *words)
        assert ended.code == 0, ended.err
        environment = json.loads((ended.folder / "environment.json").read_text())
        assert (environment["git"]["commit"], environment["git"]["diff"]) == ("abc", kept)
        hashes.add(read_result(ended.folder)["config_hash"])
    assert len(hashes) == 1  # it does not change the numbers
    current_environment.cache_clear()


def test_the_page_on_security_names_where_to_report():
    text = (ROOT / ".github" / "SECURITY.md").read_text()
    assert "private vulnerability reporting" in text.lower()
    assert not re.search(r"[\w.]+@[\w.]+\.\w+", text)
