"""Every schedule as a picture: `python scripts/plot_schedules.py [--output FILE] [overrides ...]`.

Nothing is trained: each option of conf/scheduler is built on a dummy optimizer and stepped through a run of
trainer.max_epochs. With `scheduler=cosine,step` among the overrides only these are drawn, and their keys can be set:
`scheduler=wsd scheduler.decay_fraction=0.5`.
"""

import argparse
import math
import sys
from pathlib import Path

from goldilocks.cli import options, refusals

STEPS_PER_EPOCH = 20  # the curves are the same with any other
COLUMNS = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("overrides", nargs="*", help="as of train.py; scheduler=a,b draws these only")
    parser.add_argument("--output", type=Path, default=Path("logs/schedules.png"), help="(default: %(default)s)")
    given = parser.parse_args()
    with refusals() as outcome:
        chosen = [word.partition("=")[2].split(",") for word in given.overrides if word.startswith("scheduler=")]
        others = [word for word in given.overrides if not word.startswith("scheduler=")]
        curves = {name: curve_of(name, others) for name in (chosen[-1] if chosen else options("scheduler"))}
        draw(curves, given.output)
        print(given.output)
    return outcome.code


def curve_of(name: str, overrides: list[str]) -> list[float]:
    """The rate of each step of a run."""
    import torch

    from goldilocks.checks import check
    from goldilocks.evaluate import compose
    from goldilocks.optimizers import build_optimizer, learning_rate
    from goldilocks.schedulers import build_schedule

    settings = check(compose([*overrides, f"scheduler={name}"])[0])
    epochs, packages = settings.trainer["max_epochs"], settings.packages
    optimizer = build_optimizer(settings.optimizer, torch.nn.Linear(2, 1), packages)
    length = {"steps_per_epoch": STEPS_PER_EPOCH, "max_epochs": epochs}
    schedule = build_schedule(settings.scheduler, optimizer, **length, packages=packages)
    optimizer.step()
    rates = []
    for epoch in range(epochs):
        for _ in range(STEPS_PER_EPOCH):
            rates.append(learning_rate(optimizer))
            schedule.on_step()
        metric = made_up_metric(epoch / epochs, settings.objective["mode"])
        schedule.on_epoch_end({schedule.monitor: metric} if schedule.monitor else {})
    return rates


STALLS = ((0.25, 0.4), (0.6, 0.7), (0.8, 1.0))  # parts of the run in which the made-up metric does not improve


def made_up_metric(progress: float, mode: str) -> float:
    """A loss, or what is to be maximised, that comes to rest three times; progress from 0 to 1."""
    gained = progress - sum(min(max(progress - start, 0), end - start) for start, end in STALLS)
    loss = math.exp(-5 * gained)
    return loss if mode == "min" else 1 - loss


def draw(curves: dict[str, list[float]], path: Path) -> None:
    """Writes small multiples, rate against epoch."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    columns = min(COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(3.4 * columns, 2.5 * rows), squeeze=False)
    top = max(map(max, curves.values()))
    for axis, (name, rates) in zip(axes.flat, curves.items(), strict=False):
        axis.plot([step / STEPS_PER_EPOCH for step in range(len(rates))], rates, linewidth=1.5, color="#1f5f8b")
        axis.set_title(name, fontsize=10)
        axis.set_ylim(-0.03 * top, 1.08 * top)
        axis.ticklabel_format(axis="y", scilimits=(-2, 3))
        axis.tick_params(labelsize=8)
        axis.yaxis.offsetText.set_fontsize(8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(curves) :]:
        axis.set_visible(False)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("learning rate", fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
