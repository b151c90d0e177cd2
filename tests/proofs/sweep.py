"""Sweeps: samplers, pruners, what is searched, budgets."""

import csv
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any
from unittest import mock

from omegaconf import OmegaConf

from goldilocks.config.places import CONF
from goldilocks.sweeps.search.settings import SweepSettings, sweep_settings
from goldilocks.sweeps.search.space import Dimension, Space
from goldilocks.sweeps.search.study import Study, create_study
from proofs.runs import command, empty_folder
from proofs.table import Measured, proof

RATE = Dimension("optimizer.lr", "optimizer.lr", low=1e-4, high=1.0, log=True)
PLAIN = Space([], [RATE])
QUICK = ("data=iris", "trainer=cpu", "trainer.max_epochs=1", "callbacks=none", "logger=none")


def settings_of(**changes: Any) -> SweepSettings:
    """The default settings with some changed."""
    node: Any = OmegaConf.to_container(OmegaConf.load(CONF / "sweep" / "default.yaml"))
    return sweep_settings(OmegaConf.create({"sweep": {**node, **changes}}))


def swept(*words: str) -> SimpleNamespace:
    """A sweep in this process: exit code, what it printed, the rows of trials.csv,
    and sweep.yaml.
    """
    with empty_folder() as folder:
        done = command("-m", *QUICK, "name=s", *words)
        own = folder / "logs" / "sweeps" / "s"
        rows: list[dict[str, str]] = []
        known: Any = {}
        if (own / "trials.csv").exists():
            with (own / "trials.csv").open() as file:
                rows = list(csv.DictReader(file))
            known = OmegaConf.to_container(OmegaConf.load(own / "sweep.yaml"))
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
        return SimpleNamespace(**vars(done), rows=rows, known=known, files=files)


def thirds(sampler: str, seed: int = 0, count: int = 16) -> list[int]:
    """Into which of as many equal parts of the range, by its logarithm,
    each of the first points falls.
    """
    points = PLAIN.points(sampler, seed)
    rates = [float(next(points)["optimizer.lr"]) for _ in range(count)]
    return [int(math.log10(rate / 1e-4) / 4 * count * 0.999999) for rate in rates]


@proof(
    "sweep=default",
    "G27",
    "every combination of the values on the command line",
    "pairs trained by 2 x 3 values",
    covers="sweep.sampler=grid",
)
def grid() -> Measured:
    done = swept("optimizer.lr=0.1,0.01", "optimizer=sgd,adam,nadam")
    pairs = {(row["optimizer.lr"], row["optimizer"]) for row in done.rows}
    return f"{len(pairs)} of {len(done.rows)}", (len(pairs), len(done.rows), done.code) == (6, 6, 0)


@proof(
    "sweep.sampler=qmc",
    "G27",
    "points evenly spread by Sobol's sequence",
    "parts of 16 of a range, by its logarithm, that the first 16 points fall into; the same for"
    " random ones",
    covers="sweep.sampler=random sweep.seed",
)
def evenly() -> Measured:
    even, random = len(set(thirds("qmc"))), len(set(thirds("random")))
    again, other = thirds("qmc") == thirds("qmc"), thirds("qmc") != thirds("qmc", seed=1)
    said = (
        f"the same seed {'the same' if again else 'others'}, another"
        f" {'others' if other else 'the same'}"
    )
    return (
        f"{even}; {random}; {said}",
        even >= 15 and random < 13 and again and other,
    )


def distances(sampler: str, count: int = 30) -> tuple[float, float]:
    """How far, in powers of ten, the first ten and the last ten proposals are
    from the best rate of a made-up task.
    """
    with empty_folder() as folder:
        study = create_study(
            folder, settings_of(sampler=sampler, n_trials=count), {"val/loss": "min"}, 10
        )
        found = []
        for _ in range(count):
            number, chosen = study.ask(PLAIN)
            distance = abs(math.log10(float(chosen["optimizer.lr"]) / 0.02))
            found.append(distance)
            study.tell(number, [outcome(distance**2)])
    return statistics.mean(found[:10]), statistics.mean(found[-10:])


def outcome(value: float, status: str = "done") -> dict[str, Any]:
    """What result.json says of a run, as far as a study reads it."""
    return {"status": status, "objective": {"metric": "val/loss", "value": value}}


def learns(sampler: str, count: int) -> Callable[[], Measured]:
    def measured() -> Measured:
        first, last = distances(sampler, count)
        return f"{first:.1f}; {last:.1f}", last < 0.6 * first

    return measured


for _name, _count, _words in (
    ("tpe", 30, "by Parzen estimators (Bergstra et al. 2011)"),
    ("cmaes", 60, "by an evolution strategy (Hansen and Ostermeier 2001)"),
    ("gp", 30, "by a Gaussian process"),
):
    proof(
        f"sweep.sampler={_name}",
        "G27",
        f"proposes what looks best after the trials before, {_words}",
        f"mean distance from the best rate in powers of ten, first and last ten of {_count}"
        " proposals",
    )(learns(_name, _count))


def pruned(pruner: str, **changes: Any) -> tuple[float, bool, int]:
    """Share of the epochs of 27 made-up trials that are trained, whether the best one is,
    and the least epochs of one.

    A trial's loss falls towards a level of its own; the best one comes in the middle.
    """
    with empty_folder() as folder:
        settings = settings_of(sampler="random", n_trials=27, pruner=pruner, **changes)
        study: Study = create_study(folder, settings, {"val/loss": "min"}, 27)
        trained = []
        for trial in range(27):
            level = ((trial * 11 + 14) % 27) / 27
            number, epochs = study.begin(trial, {}), 0
            stop = False
            while epochs < 27 and not stop:
                epochs += 1
                stop = study.report(number, epochs, level + 2 / (epochs + 1))
            study.tell(number, [outcome(level, "done" if epochs == 27 else "pruned")])
            trained.append((level, epochs))
    return (
        sum(epochs for _, epochs in trained) / 27**2,
        min(trained)[1] == 27,
        min(epochs for _, epochs in trained),
    )


def cuts(pruner: str, most: float, **changes: Any) -> Callable[[], Measured]:
    def measured() -> Measured:
        share, best, least = pruned(pruner, **changes)
        words = f"{share:.2f}; {'yes' if best else 'no'}; {least}"
        return words, share <= most and best and (pruner == "none" or least >= 3)

    return measured


SEEN = (
    "share of the epochs of 27 made-up trials; whether the best is trained to its end; the fewest"
    " epochs of one"
)
for _name, _most, _words, _covers in (
    ("none", 1.0, "trains all to their end", ""),
    ("asha", 0.5, "one in three goes on at 3, 9, 27 epochs (Li et al. 2020)", "sweep.min_epochs"),
    ("hyperband", 0.9, "the same, in brackets that begin later (Li et al. 2018)", ""),
    ("median", 0.7, "gives up what is worse than half of the others were at the same epoch", ""),
):
    proof(f"sweep.pruner={_name}", "G27", _words, SEEN, covers=_covers)(cuts(_name, _most))


@proof(
    "sweep.reduction_factor",
    "G27",
    "one in so many goes on",
    "share of the epochs that ASHA trains at factors 2, 3 and 6",
)
def factor() -> Measured:
    shares = [pruned("asha", reduction_factor=number)[0] for number in (2, 3, 6)]
    return " ".join(f"{share:.2f}" for share in shares), shares == sorted(shares, reverse=True)


@proof(
    "sweep.n_trials",
    "G27",
    "how many trials there are in all, also over several commands",
    "trials after 3, then the same command with 5; the number that the second ran",
)
def count() -> Measured:
    words = ("-m", *QUICK, "name=s", "sweep.sampler=qmc", "optimizer.lr=tag(log,interval(1e-3,1))")
    with empty_folder() as folder:
        codes = [command(*words, f"sweep.n_trials={number}").code for number in (3, 5)]
        results = list((folder / "logs" / "sweeps" / "s").glob("*/result.json"))
        again = command(*words, "sweep.n_trials=5")
    return (
        f"{len(results)}; a third time {again.err.count('trial ')} more",
        (codes, len(results), again.code, "5 of 5 trials are done already" in again.err)
        == ([0, 0], 5, 0, True),
    )


@proof(
    "sweep.search",
    "G2 G27",
    "searches what the chosen options state, each over its own range",
    "rates drawn with optimizer=momentum and with adam; what the files state",
)
def own_ranges() -> Measured:
    done = swept(
        "sweep.search=[optimizer.lr]",
        "optimizer=momentum,adam",
        "sweep.sampler=qmc",
        "sweep.n_trials=12",
    )
    found, right = [], done.code == 0
    for option, low, high in (("momentum", 1e-4, 0.3), ("adam", 1e-4, 3e-2)):
        rates = [float(row["optimizer.lr"]) for row in done.rows if row["optimizer"] == option]
        found.append(f"{min(rates):.0e} to {max(rates):.0e} ({low:g} to {high:g})")
        right &= low <= min(rates) and max(rates) <= high
    return "; ".join(found), right


@proof(
    "sweep.params",
    "G27",
    "values as on the command line, which wins",
    "trials by params, and with the key said too",
)
def params() -> Measured:
    stored = "sweep.params={optimizer.lr:'0.1,0.2'}"
    both = [
        [row["optimizer.lr"] for row in swept(stored, *more).rows]
        for more in ((), ("optimizer.lr=0.3,0.4,0.5",))
    ]
    return f"{len(both[0])}; {len(both[1])}", both == [["0.1", "0.2"], ["0.3", "0.4", "0.5"]]


@proof(
    "sweep.scientific",
    "G27",
    "what the sweep asks about, the best of the rest taken for each value",
    "sweep.yaml; a key that is not searched",
)
def scientific() -> Measured:
    words = ("optimizer=sgd,adam", "optimizer.lr=0.1,0.01")
    kept = swept(*words, "sweep.scientific=[optimizer]").known["settings"]["scientific"]
    wrong = swept(*words, "sweep.scientific=[model]")
    return f"{kept}; exit code {wrong.code}", (kept, wrong.code) == (["optimizer"], 2)


@proof(
    "sweep.objectives",
    "G27",
    "several at once; what no other trial beats is marked",
    "starred trials of three widths for val/loss and num_parameters; the one with the fewest"
    " parameters among them",
)
def objectives() -> Measured:
    done = swept(
        "model=shallow", "model.width=1,2,40", "sweep.objectives=[val/loss,num_parameters]"
    )
    starred = [
        line.split()[0]
        for line in done.out.splitlines()
        if line.split() and line.split()[0].endswith("*")
    ]
    return (
        f"{len(starred)}; {'yes' if '0*' in starred else 'no'}",
        "0*" in starred and done.code == 0,
    )


@proof(
    "sweep.seeds",
    "",
    "repeats each configuration",
    "seeds of two configurations with sweep.seeds=3",
)
def seeds() -> Measured:
    rows = swept("optimizer=sgd,adam", "sweep.seeds=3").rows
    found = {
        name: sorted(row["seed"] for row in rows if row["optimizer"] == name)
        for name in ("sgd", "adam")
    }
    return f"{found['sgd']}; {found['adam']}", found == {
        "sgd": ["0", "1", "2"],
        "adam": ["0", "1", "2"],
    }


@proof(
    "sweep.timeout",
    "G27",
    "ends in time with what it has, and goes on later",
    "seconds that a sweep of long trials takes with 2s; exit code; trials in its table",
)
def timeout() -> Measured:
    began = time.monotonic()
    done = swept("seed=0,1", "trainer.max_epochs=100000", "callbacks=none", "sweep.timeout=2s")
    took = time.monotonic() - began
    said = "the time is over" in done.err
    return (
        f"{'under 8' if took < 8 else f'{took:.0f}'}; {done.code}; {len(done.rows)} rows",
        took < 8 and said and not done.code,
    )


def failing(*words: str) -> SimpleNamespace:
    """A sweep whose training steps raise."""
    from goldilocks.training.module import TrainingModule

    with mock.patch.object(TrainingModule, "training_step", side_effect=OSError("made up")):
        return swept(*words)


@proof(
    "sweep.max_failures",
    "G27",
    "stops after so many failed trials in a row",
    "failed and waiting trials of five, with 3 and with null; exit code",
)
def failures() -> Measured:
    found = []
    for most in ("3", "null"):
        words = ("seed=0,1,2,3,4", "hydra/launcher=basic", f"sweep.max_failures={most}")
        done = failing(*words)
        statuses = [row["status"] for row in done.rows]
        found.append((statuses.count("failed"), statuses.count("waiting"), done.code))
    return "; ".join(str(numbers) for numbers in found), found == [(3, 2, 1), (5, 0, 1)]


@proof(
    "sweep.retry_failed",
    "G27",
    "trains failed trials once more, on request",
    "status of a failed trial after the same command, without and with it",
)
def retry() -> Measured:
    from goldilocks.training.module import TrainingModule

    words = ("-m", *QUICK, "name=s", "seed=0,1")
    with empty_folder() as folder:
        with mock.patch.object(TrainingModule, "training_step", side_effect=OSError("made up")):
            command(*words)
        found = []
        for more in ((), ("sweep.retry_failed=true",)):
            command(*words, *more)
            path = folder / "logs" / "sweeps" / "s" / "0" / "result.json"
            found.append(json.loads(path.read_text())["status"])
    return "; ".join(found), found == ["failed", "done"]


@proof(
    "sweep.skip_refused",
    "G27",
    "leaves out what of a grid cannot be trained",
    "exit code and trials of four combinations, one of which is refused, without and with it",
)
def skip_refused() -> Measured:
    found = []
    for more in ((), ("sweep.skip_refused=true",)):
        done = swept("model=linear,shallow", "regularization=none,dropout", *more)
        found.append((done.code, len(done.rows)))
    return "; ".join(str(numbers) for numbers in found), found == [(2, 0), (0, 3)]


@proof(
    "sweep.folds=auto",
    "",
    "judges the trials of few rows by cross-validation",
    "networks of a trial judged by 30 validation rows; without it",
)
def folds() -> Measured:
    found = []
    for words in (("sweep.folds=auto",), ()):
        done = swept("model.width=4", *words)
        found.append(sum("/fold_" in path and path.endswith("result.json") for path in done.files))
    return f"{found[0]}; {found[1] or 1}", found == [5, 0]


@proof(
    "sweep.ensemble",
    "",
    "networks of a sweep that predict together at most; 0: none",
    "members of the ensemble of four trials, with the default, 2 and 0",
)
def ensemble() -> Measured:
    found = []
    for words in ((), ("sweep.ensemble=2",), ("sweep.ensemble=0",)):
        with empty_folder() as folder:
            keeps = ("callbacks=default", "callbacks.progress_bar=null")
            four = ("data=diabetes", "trainer.max_epochs=20", "seed=0,1,2,3")
            command("-m", *QUICK, *keeps, "name=s", *four, *words)
            path = folder / "logs/sweeps/s/ensemble/ensemble.json"
            found.append(len(json.loads(path.read_text())["members"]) if path.exists() else 0)
    return " ".join(map(str, found)), found == [4, 2, 0]


@proof(
    "sweep=guide",
    "G5",
    "looks, begins with what is known to do well, explores, refines and answers, within a number of"
    " trials",
    "steps of 16 trials, the first change that is tried, questions that the report lists",
    covers="sweep.sampler=guide",
)
def guide() -> Measured:
    with empty_folder() as folder:
        keeps = ("callbacks=default", "callbacks.progress_bar=null", "sweep.folds=null")
        small = ("data=wine", "trainer.max_epochs=2", "sweep.n_trials=16")
        command("-m", *QUICK, *keeps, "sweep=guide", "name=s", *small)
        known = json.loads((folder / "logs/sweeps/s/guide.json").read_text())
    steps = list(dict.fromkeys(one["step"] for one in known["batches"]))
    first = next(one["question"] for one in known["batches"] if one["question"])
    questions = len(known["told"]["answers"])
    return f"{len(steps)}; {first}; {questions}", (len(steps), first, questions) == (5, "depth", 18)


@proof(
    "sweep.budget",
    "",
    "how long a guided search takes, test and report included",
    "seconds of a search of 20 s on a small table",
)
def budget() -> Measured:
    began = time.monotonic()
    words = [sys.executable, str(CONF.parent / "train.py"), "-m", *QUICK, "name=s", "data=wine"]
    words += ["sweep=guide", "sweep.budget=20s", "callbacks=default", "callbacks.progress_bar=null"]
    with empty_folder():  # of its own: the start of the process counts
        subprocess.run(words, capture_output=True, check=True)
    took = time.monotonic() - began
    return "within 10 s of it" if abs(took - 20) < 10 else f"{took:.0f}", abs(took - 20) < 10


@proof(
    "sweep.portfolio",
    "",
    "configurations with which a guided search begins",
    "models of the first trials after the default, with one of a single entry",
)
def portfolio() -> Measured:
    with empty_folder() as folder:
        keeps = ("callbacks=default", "callbacks.progress_bar=null", "sweep.folds=null")
        small = ("data=wine", "trainer.max_epochs=2", "sweep.n_trials=8")
        own = "sweep.portfolio=[model=selfnorm]"
        command("-m", *QUICK, *keeps, "sweep=guide", "name=s", *small, own)
        trials = folder / "logs/sweeps/s/trials"
        found = [json.loads((trials / f"{n}.json").read_text())["choices"] for n in (0, 1)]
    models = [choices["model"] for choices in found]
    return " ".join(models), models == ["shallow", "selfnorm"]


@proof(
    "sweep.dry_run",
    "G27",
    "says what would be trained, and trains nothing",
    "rows printed, files written, exit code",
)
def dry_run() -> Measured:
    done = swept("model.depth=0,1", "sweep.dry_run=true", "model=deep")
    rows = [
        line
        for line in done.out.splitlines()
        if line[:1].isdigit() and "if none stops early" not in line
    ]
    return f"{len(rows)}; {len(done.files)}; {done.code}", (len(rows), done.files, done.code) == (
        2,
        [],
        0,
    )


@proof(
    "sweep.storage",
    "G27",
    "keeps the study in a database",
    "trials that SQLite's file holds; whether there is a journal",
)
def storage() -> Measured:
    import optuna

    words = ("sweep.sampler=tpe", "sweep.n_trials=2", "optimizer.lr=tag(log,interval(1e-3,1))")
    with empty_folder() as folder:
        code = command("-m", *QUICK, "name=s", *words, "sweep.storage=sqlite:///study.db").code
        (name,) = optuna.get_all_study_names("sqlite:///study.db")
        trials = optuna.load_study(study_name=name, storage="sqlite:///study.db").trials
        journal = list(folder.rglob("*.journal"))
    return f"{len(trials)}; {'yes' if journal else 'no'}", (code, len(trials), journal) == (
        0,
        2,
        [],
    )


# --- the sweeps of conf/sweep ---------------------------------------------------------------------


def ready(name: str, scientific: set[str], words: tuple[str, ...] = ()) -> Callable[[], Measured]:
    """Trains the first trials of a ready sweep."""

    def measured() -> Measured:
        done = swept(f"sweep={name}", "sweep.n_trials=8", *words)
        searched = {name.partition("@")[0] for name in done.known["space"]}
        statuses = [row["status"] for row in done.rows]
        asked = set(done.known["settings"]["scientific"])
        trained = sum(status in ("done", "diverged") for status in statuses)
        return f"{' '.join(sorted(searched))}; {trained} of 8", (asked, trained, done.code) == (
            scientific,
            8,
            0,
        )

    return measured


READY: Mapping[str, tuple[str, str, set[str]]] = {
    "learning_rate": ("G12", "the rate over the optimizer's range", {"optimizer.lr"}),
    "architecture": ("G1 G4 G5", "shape, depth, width", {"model", "model.depth", "model.width"}),
    "activation": ("G16", "activations and initial weights", {"model.activation", "model.init"}),
    "optimizer": ("G19", "optimizers, each with its own rates", {"optimizer"}),
    "regularization": ("G22", "regularizers, each with its own strength", {"regularization"}),
    "batch_size": ("G8", "batch sizes, the rate retuned", {"data.batch_size"}),
    "everything": ("G27", "network, optimizer, regularization", set()),
}
for _name, (_guide, _words, _asked) in READY.items():
    proof(
        f"sweep={_name}",
        _guide,
        f"asks about {_words}",
        "what is searched; of 8 trials, those trained",
    )(ready(_name, _asked))


# --- launchers ------------------------------------------------------------------------------------


def launched(name: str) -> Callable[[], Measured]:
    """Two trials by a launcher of others, which hands what this process has
    imported to processes: one of its own.
    """

    def measured() -> Measured:
        words = [sys.executable, str(CONF.parent / "train.py"), "-m", *QUICK, "name=s", "seed=0,1"]
        with empty_folder() as folder:
            done = subprocess.run(
                [*words, f"hydra/launcher={name}"], capture_output=True, text=True, check=False
            )
            results = (folder / "logs" / "sweeps" / "s").glob("*/result.json")
            statuses = [json.loads(path.read_text())["status"] for path in results]
        return f"{statuses.count('done')}", (statuses, done.returncode) == (["done", "done"], 0)

    return measured


for _name, _words in (
    ("joblib", "trials in processes that are kept"),
    ("submitit_local", "trials as jobs of this machine"),
):
    proof(f"hydra/launcher={_name}", "G27", _words, "trials done in a sweep of 2")(launched(_name))


@proof(
    "hydra/launcher=submitit_slurm",
    "G27",
    "trials as jobs of a Slurm cluster",
    "without Slurm, the line that is printed",
)
def slurm() -> Measured:
    done = swept("seed=0,1", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu")
    line = done.err.strip().splitlines()[-1] if done.err.strip() else ""
    return f"not run: {line}", done.code == 2 and "no Slurm" in line


@proof(
    "hydra/launcher=ray",
    "G27",
    "trials on workers of Ray",
    "trials done in a sweep of 2; without Ray, the line",
)
def ray() -> Measured:
    import importlib.util

    if importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is not None:
        return launched("ray")()
    done = swept("seed=0,1", "hydra/launcher=ray")
    line = done.err.strip()
    return f"not run: {line}", done.code == 2 and "pip install -e '.[ray]'" in line
