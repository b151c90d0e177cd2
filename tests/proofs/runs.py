"""Runs and sweeps: seed, name, folder, resuming, sweeps."""

import contextlib
import csv
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from hydra.core.global_hydra import GlobalHydra

from goldilocks.config.places import CONF
from goldilocks.runs import folder as run_folder
from goldilocks.training.outcome import read_outcome
from proofs.drive import prepared, train, vector
from proofs.table import Measured, proof

TINY = (
    "data=iris",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "callbacks.progress_bar=null",
    "callbacks.baselines=null",
)


@contextlib.contextmanager
def empty_folder() -> Iterator[Path]:
    """A folder of its own to start commands in."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def command(*words: str) -> SimpleNamespace:
    """`python train.py WORDS` in this process; its exit code and what it printed."""
    sys.path.insert(0, str(CONF.parent))
    out, err = io.StringIO(), io.StringIO()
    GlobalHydra.instance().clear()
    try:
        import train

        typed = mock.patch.object(sys, "argv", [str(CONF.parent / "train.py"), *words])
        with typed, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = train.main()
    finally:
        sys.path.remove(str(CONF.parent))
        GlobalHydra.instance().clear()
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())


@proof(
    "seed",
    "",
    "draws initial weights and the order of the batches, not the split",
    "weights before and after training, seeds 0 0 1",
)
def seed() -> Measured:
    fits = [train(f"seed={number}") for number in (0, 0, 1)]
    ends = [(vector(fit.steps[0].before), vector(fit.steps[-1].after)) for fit in fits]
    again = all(torch.equal(one, other) for one, other in zip(ends[0], ends[1], strict=True))
    differs = not any(torch.equal(one, other) for one, other in zip(ends[0], ends[2], strict=True))
    split = torch.equal(
        fits[0].parts.data.tensors["train"][0], fits[2].parts.data.tensors["train"][0]
    )
    return (
        f"same seed: {'the same bits' if again else 'other weights'}; another:"
        f" {'other' if differs else 'the same'}"
        f" weights, {'the same' if split else 'other'} rows",
        again and differs and split,
    )


@proof(
    "name", "G29", "names the run's folder", "folder of a run named trial-of-mine", covers="log_dir"
)
def name() -> Measured:
    with empty_folder() as folder:
        done = command(*TINY, "name=trial-of-mine", "log_dir=elsewhere")
        found = [path.relative_to(folder).as_posix() for path in folder.glob("*/runs/*")]
    shown = [path.split("_")[0].split("/")[0] + "/.../" + path.split("_")[2] for path in found]
    return f"{' '.join(shown)}, exit code {done.code}", shown == [
        "elsewhere/.../trial-of-mine"
    ] and done.code == 0


@proof(
    "resume",
    "",
    "goes on from last.ckpt, to the same bits",
    "weights after 2 epochs and 2 more, minus those of 4 at once",
)
def resume() -> Measured:
    with empty_folder() as folder:
        codes = [
            command(*TINY, "name=parts").code,
            command("resume=last", "trainer.max_epochs=4").code,
        ]
        codes.append(command(*TINY, "trainer.max_epochs=4", "name=whole").code)
        ends = []
        for run in ("parts", "whole"):
            (path,) = folder.glob(f"logs/runs/*_{run}_*/checkpoints/last.ckpt")
            ends.append(torch.load(path, weights_only=True)["state_dict"])
    largest = max((ends[0][key] - ends[1][key]).abs().max().item() for key in ends[0])
    return f"{largest:g}, exit codes {' '.join(map(str, codes))}", largest == 0 and codes == [
        0,
        0,
        0,
    ]


@proof(
    "kept_predictions",
    "",
    "how many rows' predictions a run keeps",
    "validation rows kept of 30, with the default, 7 and 0",
)
def kept_predictions() -> Measured:
    kept = []
    for words in ((), ("kept_predictions=7",), ("kept_predictions=0",)):
        with empty_folder() as folder:
            command(*TINY, *words)
            files = list(folder.glob("logs/runs/*/predictions/val.npz"))
            kept += [len(read_outcome(path).rows) for path in files] or [0]
    return " ".join(map(str, kept)), kept == [30, 7, 0]


@proof(
    "record_changes",
    "",
    "whether environment.json keeps the uncommitted changes of tracked files",
    "the changes that a run keeps, of a file and of one that looks like a secret",
)
def record_changes() -> Measured:
    from goldilocks.config import privacy

    both = [f"diff --git a/{name} b/{name}\n+x\n" for name in ("net.py", "keys.pem")]
    diff, left_out = privacy.shareable("".join(both))
    git = {"commit": "0", "diff": diff, "left_out": left_out}
    kept = []
    with mock.patch.object(run_folder, "environment", return_value={"git": git}):
        for words in ((), ("record_changes=false",)):
            with empty_folder() as folder:
                command(*TINY, *words)
                (path,) = folder.glob("logs/runs/*/environment.json")
                kept.append(json.loads(path.read_text())["git"]["diff"])
    return f"{(kept[0] or '').count('diff')}; {kept[1]}", kept == [both[0], None]


@proof(
    "packages",
    "",
    "only classes of these packages and of the known libraries are built",
    "a class of unittest, without and with it in the list",
)
def packages() -> Measured:
    from goldilocks.errors import Refused

    said = []
    for words in ((), ("packages=[unittest]",)):
        try:
            prepared("model._target_=unittest.TestCase", *words)
        except Refused as error:
            said.append(str(error).split(" (")[0].split(": ", 1)[1])
    return "; ".join(said), len(said) == 2 and "package unittest is not allowed" in said[
        0
    ] and "must be a subclass" in said[1]


@proof(
    "hydra/sweeper=study",
    "G5 G27",
    "a run for each combination, all checked before the first; the best first",
    "folders and table of a sweep of 2 x 2; of one with a wrong value",
)
def sweep() -> Measured:
    with empty_folder() as folder:
        done = command(
            "-m", *TINY, "model.depth=0,2", "optimizer=sgd,adam", "model=deep", "name=four"
        )
        runs = sorted((folder / "logs" / "sweeps" / "four").glob("[0-9]/result.json"))
        results = [json.loads(path.read_text()) for path in runs]
        with (folder / "logs" / "sweeps" / "four" / "trials.csv").open() as file:
            pairs = {(row["model.depth"], row["optimizer"]) for row in csv.DictReader(file)}
        wrong = command("-m", *TINY, "optimizer.lr=0.1,-1", "name=wrong")
        left = (folder / "logs" / "sweeps" / "wrong").exists()
    tested = sum("test/loss" in result["metrics"] for result in results)
    return (
        f"{len(results)} runs of {len(pairs)} combinations, {tested} tested; wrong value: exit"
        f" code {wrong.code},"
        f" {'a' if left else 'no'} folder left",
        (done.code, len(results), len(pairs), tested, wrong.code, left) == (0, 4, 4, 0, 2, False),
    )


@proof(
    "hydra/launcher=process",
    "G27",
    "each trial in a fresh process, several side by side",
    "trials done, and the differing process ids that their event files name, in a sweep of 2",
)
def processes() -> Measured:
    with empty_folder() as folder:
        words = [
            "-m",
            *TINY,
            "model.width=3,4",
            "name=two",
            "hydra/launcher=process",
            "logger=tensorboard",
        ]
        code = command(*words).code
        runs = sorted((folder / "logs" / "sweeps" / "two").glob("[0-9]/result.json"))
        statuses = [json.loads(path.read_text())["status"] for path in runs]
        # events.out.tfevents.TIME.HOST.PROCESS.COUNT
        ids = {
            path.name.split(".")[-2]
            for path in (folder / "logs" / "sweeps" / "two").glob("[0-9]/events.out.*")
        }
    return f"{statuses.count('done')}; {len(ids)}", (code, statuses, len(ids)) == (
        0,
        ["done", "done"],
        2,
    )


def trained_by(launcher: str, *words: str) -> tuple[int, int, int]:
    """Of a sweep of four trials, two of which have the same layers: exit code, trials done, and
    those that were trained as one network.
    """
    with empty_folder() as folder:
        given = ["model.width=3,4", "seed=0,1", "name=two", f"hydra/launcher={launcher}", *words]
        ended = command("-m", *TINY, *given)
        runs = (folder / "logs" / "sweeps" / "two").glob("[0-9]/result.json")
        done = [json.loads(path.read_text())["status"] for path in runs].count("done")
        told = [line for line in ended.err.splitlines() if "trained as one network" in line]
        return ended.code, done, sum(int(line.split()[0]) for line in told)


@proof(
    "hydra/launcher=auto",
    "G27",
    "trials of the same layers trained as one network where that is faster",
    "trials done of 4, and trained so; with networks that count as too large",
)
def together_where_it_pays() -> Measured:
    from goldilocks.training.fused import alike

    found = [trained_by("auto")]
    with mock.patch.dict(alike.PAYS, cpu=0):
        found.append(trained_by("auto"))
    shown = "; ".join(f"{done} {fused}" for _, done, fused in found)
    return shown, found == [(0, 4, 4), (0, 4, 0)]


@proof(
    "hydra/launcher=fused",
    "G27",
    "the same without asking whether it is faster",
    "trials done of 4, and trained so, with networks that count as too large",
)
def together_always() -> Measured:
    from goldilocks.training.fused import alike

    with mock.patch.dict(alike.PAYS, cpu=0):
        code, done, fused = trained_by("fused")
    return f"{done} {fused}", (code, done, fused) == (0, 4, 4)
