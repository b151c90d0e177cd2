import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from goldilocks.config.choices import config_hash, flat_options
from goldilocks.config.places import CONF
from goldilocks.config.plain import plain
from goldilocks.data.spec import Spec
from goldilocks.errors import Refused
from goldilocks.machine.files import write_json
from goldilocks.runs import failures
from goldilocks.runs.environment import environment, packages
from goldilocks.runs.folder import (
    FILES,
    find_run,
    is_trial,
    make_run_folder,
    read_config,
    read_overrides,
    read_result,
    write_start,
)
from goldilocks.training.checkpoints import load_checkpoint, load_weights

NOW = datetime(2026, 11, 23, 8, 15, 30)
CFG = {
    "seed": 3,
    "name": "a",
    "log_dir": "logs",
    "resume": None,
    "packages": [],
    "model": {
        "_target_": "goldilocks.models.mlp.MLP",
        "width": [64, 32],
        "dropout": "${regularization.dropout}",
    },
    "regularization": {"dropout": 0.1},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": None},
    "callbacks": {"early_stopping": {"patience": 5}},
}


def config(**changes):
    return OmegaConf.create({**CFG, **changes})


def make_run(runs, name="a", status="done"):
    folder = make_run_folder(runs, name, "abc123", NOW)
    write_start(folder, plain(config()), ["seed=3"], {"status": status})
    return folder


# --- folders --------------------------------------------------------------------------------------


def test_a_folder_is_named_by_time_name_and_hash(tmp_path):
    folder = make_run_folder(tmp_path / "logs" / "runs", "deep-nadam", "4f2a9c", NOW)
    assert folder == tmp_path / "logs" / "runs" / "2026-11-23_08-15-30_deep-nadam_4f2a9c"
    assert folder.is_dir()


def test_eight_runs_of_the_same_second_have_eight_folders(tmp_path):
    gate = threading.Barrier(8)

    def make(_):
        gate.wait()
        return make_run_folder(tmp_path / "runs", "deep", "abc123", NOW)

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(make, range(8)))
    first = "2026-11-23_08-15-30_deep_abc123"
    assert sorted(folder.name for folder in folders) == [
        first,
        *(f"{first}-{number}" for number in range(2, 9)),
    ]


def test_the_start_leaves_what_explains_the_run(tmp_path):
    folder = make_run(tmp_path / "runs", status="running")
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert OmegaConf.load(folder / "config.yaml").model.dropout == 0.1  # references are followed
    assert OmegaConf.load(folder / "overrides.yaml") == ["seed=3"]
    written = json.loads((folder / "environment.json").read_text())
    assert written["seed"] == 3
    assert written["torch"] == torch.__version__
    assert written["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert written["git"].keys() == {"commit", "diff", "left_out"}
    assert read_result(folder) == {"status": "running"}


def test_the_build_of_torch_is_kept_where_the_package_does_not_say_it(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    environment.cache_clear()
    assert environment()["torch"] == "2.13.0+cu130"
    environment.cache_clear()


def test_the_packages_are_those_that_python_imports(tmp_path, monkeypatch):
    for place, version in (("first", "2.0"), ("second", "1.0")):
        about = tmp_path / place / f"twice-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Name: twice\nVersion: {version}\n")
    (tmp_path / "first" / "~alf-1.0.dist-info").mkdir()  # pip was stopped
    for place in ("second", "first"):
        monkeypatch.syspath_prepend(tmp_path / place)
    found = packages()
    assert found["twice"] == "2.0"
    assert all(isinstance(name, str) and name for name in found)


def test_a_run_is_found_by_its_path_or_as_the_newest(tmp_path):
    one, two = make_run(tmp_path / "runs", "one"), make_run(tmp_path / "runs", "two")
    assert find_run(str(one), tmp_path) == one
    assert find_run("last", tmp_path) == two
    (tmp_path / "runs" / "zzz").mkdir()
    (tmp_path / "runs" / "README.md").write_text("what lies here")
    assert find_run("last", tmp_path) == two


def test_the_newest_is_found_beside_a_damaged_folder(tmp_path):
    one = make_run(tmp_path / "runs", "one")
    damaged = make_run(tmp_path / "runs", "two")
    (damaged / "config.yaml").unlink()
    assert find_run("last", tmp_path) == one


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"^last: there is no run in .*runs"):
        find_run("last", tmp_path)
    with pytest.raises(
        Refused, match=r"nowhere: no such run folder; write a folder of .*runs, or last"
    ):
        find_run(str(tmp_path / "nowhere"), tmp_path)
    with pytest.raises(Refused, match=r"is not a run folder, it has no config.yaml"):
        find_run(str(tmp_path), tmp_path)
    folder = make_run(tmp_path / "runs")
    (folder / "result.json").unlink()
    with pytest.raises(Refused, match=r"is not a run folder, it has no result.json"):
        find_run(str(folder), tmp_path)
    with pytest.raises(Refused, match=r"no such run folder"):
        find_run(str(folder / "config.yaml"), tmp_path)


def test_the_packages_of_a_folder_are_not_trusted(tmp_path):
    folder = make_run(tmp_path / "runs")
    names = ("data", "scheduler", "trainer", "objective", "task", "loss")
    groups = {group: {} for group in names}
    OmegaConf.save(config(packages=["os"], **groups), folder / "config.yaml")
    own = OmegaConf.load(CONF / "train.yaml").packages
    assert read_config(folder).packages == own
    assert read_config(folder).optimizer.lr == 0.1
    assert read_overrides(folder) == ["seed=3"]


@pytest.mark.parametrize("text", ["a: [1, 2", "- 1\n- 2\n", "\t{", "a: ${b"])
def test_a_damaged_configuration_is_refused(text, tmp_path):
    folder = make_run(tmp_path / "runs")
    (folder / "config.yaml").write_text(text)
    with pytest.raises(
        Refused, match=r"its config.yaml (cannot be read|is not a configuration)"
    ) as caught:
        read_config(folder)
    assert "\n" not in str(caught.value)


def test_a_trial_lies_in_a_sweep(tmp_path):
    folder = make_run(tmp_path / "sweep")
    assert not is_trial(folder)
    (tmp_path / "sweep" / "sweep.yaml").write_text("")
    assert is_trial(folder)


# --- results --------------------------------------------------------------------------------------


def test_numbers_that_are_not_finite_become_null(tmp_path):
    nan, inf = float("nan"), float("inf")
    value = {"x": nan, "list": [1.5, inf, (2, -inf)], "in": {"y": nan, "z": 1}, "s": "NaN"}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    found = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found == {
        "x": None,
        "list": [1.5, None, [2, None]],
        "in": {"y": None, "z": 1},
        "s": "NaN",
    }


def test_a_reader_never_sees_half_a_file(tmp_path):
    path, ended, seen = tmp_path / "result.json", threading.Event(), set()
    write_json(path, {"version": 0, "padding": ["x" * 100] * 500})

    def read():
        while not ended.is_set():
            seen.add(json.loads(path.read_text())["version"])

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for version in range(1, 150):
            write_json(path, {"version": version, "padding": ["x" * 100] * 500})
        ended.set()
        reading.result()
    assert len(seen) > 1
    assert [found.name for found in tmp_path.iterdir()] == ["result.json"]


def test_a_value_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": 2, "y": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("text", [None, "", "{", '{"status": "do'])
def test_a_damaged_result_is_refused(text, tmp_path):
    if text is not None:
        (tmp_path / "result.json").write_text(text)
    with pytest.raises(Refused, match=r"its result.json cannot be read") as caught:
        read_result(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_error_is_one_line_with_its_type():
    found = failures.summary(RuntimeError("sizes\n  do not fit"))
    assert found == {"type": "RuntimeError", "message": "sizes do not fit"}


# --- the configuration in short -------------------------------------------------------------------


def test_the_hash_ignores_what_does_not_change_the_numbers():
    first = config_hash(config())
    assert len(first) == 12
    assert int(first, 16) >= 0
    assert config_hash(config(name="b", log_dir="/elsewhere", resume="last")) == first
    assert config_hash(OmegaConf.create(dict(reversed(CFG.items())))) == first


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"regularization": {"dropout": 0.2}}, {"optimizer": {"lr": 0.1}}]
)
def test_the_hash_changes_with_what_does(change):
    assert config_hash(config(**change)) != config_hash(config())


def test_the_hash_follows_references():
    """A value that is written out is the value that is referred to."""
    written = {**CFG["model"], "dropout": 0.1}
    assert config_hash(config(model=written)) == config_hash(config())


def test_options_by_dotted_key_have_choices_first_and_each_value_once():
    flat = flat_options(config(), {"optimizer": "sgd", "regularization": ["dropout", "l2"]})
    assert flat == {
        "optimizer": "sgd",
        "regularization": "dropout+l2",
        "seed": 3,
        "model.width": [64, 32],
        "regularization.dropout": 0.1,  # model.dropout refers to it
        "optimizer.lr": 0.1,
        "optimizer.momentum": None,
        "callbacks.early_stopping.patience": 5,
    }
    assert list(flat)[:2] == ["optimizer", "regularization"]
    assert type(flat["model.width"]) is list


@pytest.mark.parametrize(("name", "expected"), [("iris", {}), ("wine", {"data.name": "wine"})])
def test_a_name_that_repeats_the_choice_is_left_out(name, expected):
    """Other words may be the same by chance: trainer=auto and trainer.threads=auto."""
    cfg = OmegaConf.create({"data": {"name": name}, "trainer": {"threads": "auto"}})
    flat = flat_options(cfg, {"data": "iris", "trainer": "auto"})
    assert flat == {"data": "iris", "trainer": "auto", **expected, "trainer.threads": "auto"}


# --- checkpoints ----------------------------------------------------------------------------------


def save_checkpoint(path, network=None, **more):
    network = network or nn.Linear(3, 2)
    spec = Spec("multiclass", (3,), 2)
    torch.save({"state_dict": network.state_dict(), "spec": spec.as_plain(), **more}, path)
    return network


def test_a_checkpoint_gives_the_weights_back(tmp_path):
    path = tmp_path / "best.ckpt"
    network, other = save_checkpoint(path), nn.Linear(3, 2)
    load_weights(other, load_checkpoint(path), path)
    assert torch.equal(other.weight, network.weight)
    assert torch.equal(other.bias, network.bias)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(share, tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        Refused, match=r"last.ckpt: cannot be read as a checkpoint, it is truncated or damaged$"
    ):
        load_checkpoint(path)


def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path):
    path = tmp_path / "best.ckpt"
    with pytest.raises(Refused, match=r"best.ckpt: there is no such checkpoint"):
        load_checkpoint(path)
    with pytest.raises(Refused, match="there is no such checkpoint"):
        load_checkpoint(tmp_path)
    for content in (nn.Linear(1, 1).state_dict(), [1, 2], {"state_dict": {}}, {"spec": {}}):
        torch.save(content, path)
        with pytest.raises(Refused, match=r"best.ckpt: is not a checkpoint of goldilocks"):
            load_checkpoint(path)


def test_a_checkpoint_runs_no_code(tmp_path):
    """A pickle that would make a file when it is loaded."""
    path, proof = tmp_path / "best.ckpt", tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return Path.touch, (proof,)

    save_checkpoint(path, hook=Trap())
    with pytest.raises(Refused, match="cannot be read as a checkpoint"):
        load_checkpoint(path)
    assert not proof.exists()
    torch.load(path, weights_only=False)
    assert proof.exists()  # the trap was armed


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (nn.Linear(4, 2), r"weight: \(2, 3\) in the checkpoint, \(2, 4\) in the configuration"),
        (nn.Linear(3, 2, bias=False), r"bias: \(2,\) in the checkpoint, none in the configuration"),
        (
            nn.Sequential(nn.Linear(3, 2)),
            r"0.weight: none in the checkpoint, \(2, 3\) in the configuration",
        ),
    ],
)
def test_weights_of_another_network_name_the_first_tensor_that_differs(network, said, tmp_path):
    path = tmp_path / "best.ckpt"
    save_checkpoint(path)
    with pytest.raises(
        Refused, match=rf"best.ckpt: holds the weights of another network \({said}\)$"
    ):
        load_weights(network, load_checkpoint(path), path)
