"""Threads of the CPU: the measurement, its memory, and what a run makes of them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import SMALL
from fitting import make_network
from goldilocks.machine import threads
from goldilocks.machine.threads import SMALL_WORK, choose_threads, measure, memory
from goldilocks.runs.environment import recorded_threads
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.training.components import prepare
from goldilocks.training.threads import threads_for

WORDS = ["data=iris", "trainer=smoke", "callbacks=none", "logger=none", "model.width=8"]
CLOCK = [0.0]


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of 12 cores that remembers nothing; the threads that torch is set to."""
    given = [1]
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: given[-1])
    monkeypatch.setattr(threads, "ALL_THREADS", 12)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: CLOCK[0]))
    return given


def step_of(machine, seconds):
    """A step that takes some seconds by the number of threads, on a clock of its own:
    this machine may be busy.
    """

    def step():
        CLOCK[0] += seconds[machine[-1]]

    return step


@pytest.mark.parametrize(
    ("seconds", "most", "chosen"),
    [
        ({1: 0.002, 2: 0.004}, 12, 1),
        ({1: 0.008, 2: 0.004, 4: 0.004}, 12, 2),
        ({1: 0.032, 2: 0.016, 4: 0.008, 8: 0.004, 12: 0.002}, 12, 12),
        ({1: 0.008, 2: 0.004, 3: 0.002}, 3, 3),
        ({1: 0.0060, 2: 0.0055}, 2, 1),  # not worth a core
        ({1: 0.002}, 1, 1),
    ],
)
def test_threads_double_as_long_as_that_pays(seconds, most, chosen, machine):
    assert measure(step_of(machine, seconds), most) == chosen
    assert machine[-1] == 1  # as it was


def test_a_choice_is_measured_once_for_each_network_and_remembered(machine):
    made = []

    def make_step():
        made.append(1)
        return step_of(machine, {1: 0.004, 2: 0.001, 4: 0.001})

    assert [choose_threads(SMALL_WORK, "net", make_step) for _ in range(3)] == [2, 2, 2]
    assert len(made) == 1
    assert choose_threads(SMALL_WORK, "another", make_step) == 2
    assert len(made) == 2
    assert set(json.loads(memory().read_text()).values()) == {2}


def test_a_small_step_is_not_measured(machine):
    assert choose_threads(SMALL_WORK - 1, "net", lambda: pytest.fail("measured")) == 1
    assert not memory().exists()


def test_a_share_of_the_cores_is_all_there_is(machine, monkeypatch):
    """Launchers that run trials side by side give each of them its share by OMP_NUM_THREADS."""
    monkeypatch.setattr(threads, "ALL_THREADS", 1)
    assert choose_threads(10 * SMALL_WORK, "net", lambda: pytest.fail("measured")) == 1


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": "b"}', '{"a": 0}', '{"a": 99}'])
def test_a_damaged_memory_is_measured_again(content, machine):
    memory().parent.mkdir(parents=True)
    memory().write_text(content)
    assert (
        choose_threads(SMALL_WORK, "net", lambda: step_of(machine, {1: 0.004, 2: 0.001, 4: 0.001}))
        == 2
    )
    assert list(json.loads(memory().read_text()).values()) == [2]


def test_where_nothing_can_be_remembered_it_is_measured(machine, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert choose_threads(SMALL_WORK, "net", lambda: step_of(machine, {1: 0.001, 2: 0.001})) == 1


def test_a_step_that_fails_is_left_to_the_run_itself(machine):
    def make_step():
        raise RuntimeError("shapes do not fit")

    assert choose_threads(SMALL_WORK, "net", make_step) == 1
    assert not memory().exists()


# --- in a run -------------------------------------------------------------------------------------


def test_the_option_has_the_last_word(machine, compose):
    assert threads_for(prepare(compose(*WORDS, "trainer.threads=3"))) == 3


def test_a_run_takes_and_records_what_pays_and_a_resumed_one_keeps_it(
    machine, compose, tmp_path, monkeypatch
):
    cfg, folder = compose(*WORDS), tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(
        threads, "SMALL_WORK", 67 * 32
    )  # 4 x 8 + 8 weights and biases, 8 x 3 + 3: 67
    monkeypatch.setattr(threads, "seconds", lambda step, count: (step(), 1 / count)[1])
    assert run(RunRequest(cfg, folder, WORDS), prepare(cfg))["status"] == "done"
    assert machine[-1] == recorded_threads(folder) == 12
    monkeypatch.setattr(threads, "SMALL_WORK", 67 * 32 + 1)
    assert threads_for(prepare(cfg)) == 1
    assert run(RunRequest(cfg, folder, WORDS, resumed=True), prepare(cfg))["status"] == "done"
    assert machine[-1] == recorded_threads(folder) == 12


def test_trials_that_differ_in_rates_share_one_measurement(machine, compose, monkeypatch):
    monkeypatch.setattr(threads, "SMALL_WORK", 0)
    monkeypatch.setattr(threads, "seconds", lambda step, count: 1.0)
    for words in (
        ["optimizer.lr=0.1"],
        ["regularization.dropout=0.5"],
        ["regularization.dropout=0.2", "seed=3"],
    ):
        threads_for(prepare(compose(*WORDS, "model.depth=1", "regularization.dropout=0.1", *words)))
    assert len(json.loads(memory().read_text())) == 1
    threads_for(prepare(compose(*WORDS, "model.depth=2", "regularization.dropout=0.1")))
    assert len(json.loads(memory().read_text())) == 2


def test_measuring_changes_nothing_that_is_trained(compose, monkeypatch, tmp_path):
    words = ["model.norm=batch", "regularization=[dropout,cutmix]"]
    parts = prepare(compose(*SMALL, *words))
    before = {key: value.clone() for key, value in parts.module.state_dict().items()}
    monkeypatch.setattr(threads, "ALL_THREADS", 2)
    monkeypatch.setattr(threads, "SMALL_WORK", 0)
    monkeypatch.setattr(threads, "seconds", lambda step, count: (step(), 1.0)[1])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert threads_for(parts) == 1 and memory().exists()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert all(torch.equal(value, before[key]) for key, value in parts.module.state_dict().items())
    assert all(parameter.grad is None for parameter in parts.module.parameters())


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"threads": null}', '{"threads": "2"}', '{"threads": 0}']
)
def test_threads_that_are_not_on_record(content, tmp_path):
    assert recorded_threads(tmp_path) is None
    (tmp_path / "environment.json").write_text(content)
    assert recorded_threads(tmp_path) is None


def test_one_network_of_the_fits_is_small():
    assert sum(p.numel() for p in make_network().parameters()) * 8 < SMALL_WORK
