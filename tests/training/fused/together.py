"""Runs of a few epochs, one by one and together."""

from pathlib import Path

from goldilocks.config.compose import compose, prepare_hydra
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.training.checkpoints import load_checkpoint
from goldilocks.training.fused.steps import StepsTogether
from goldilocks.training.fused.turns import Partner, answer_all

QUICK = [
    "trainer=cpu",
    "data=iris",
    "data.batch_size=16",
    "trainer.max_epochs=4",
    "callbacks.progress_bar=null",
    "callbacks.baselines=null",
    "callbacks.health=null",
    "callbacks.histograms=null",
    "callbacks.graph=null",
    "callbacks.charts=null",
    "callbacks.evaluation=null",
    "callbacks.importance=null",
    "logger=none",
    "model=shallow",
    "model.width=8",
]


def request_of(folder: Path, overrides: list[str], **more) -> RunRequest:
    """Of a trial: it is not tested."""
    prepare_hydra()
    own = {key for key, _, _ in (text.partition("=") for text in overrides)}
    quick = [text for text in QUICK if text.partition("=")[0] not in own]
    if "model=cnn" in overrides or "model=linear" in overrides:  # have no width
        quick.remove("model.width=8")
    cfg, choices = compose([*quick, *overrides])
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "sweep.yaml").touch()  # a trial draws and explains less
    return RunRequest(cfg, folder, overrides, choices, test=False, **more)


def one_by_one(folder: Path, trials: list[list[str]]) -> list[dict]:
    return [run(request_of(folder / str(n), overrides)) for n, overrides in enumerate(trials)]


def together(folder: Path, trials: list[list[str]], steps=None, **more) -> list[dict]:
    """Results of runs whose steps are taken together."""
    found: dict[int, dict] = {}

    def work_of(number: int, overrides: list[str]):
        def work(partner: Partner) -> None:
            own = folder / str(number)
            found[number] = run(request_of(own, overrides, partner=partner, **more))

        return work

    partners = [Partner(work_of(*trial)) for trial in enumerate(trials)]
    answer_all(partners, steps or StepsTogether())
    for partner in partners:
        if partner.error is not None:
            raise partner.error
    return [found[number] for number in range(len(trials))]


def checkpoint(folder: Path, number: int, name: str = "last") -> dict:
    return load_checkpoint(folder / str(number) / "checkpoints" / f"{name}.ckpt")
