"""Draws every schedule of conf/scheduler without training:
`python scripts/plot_schedules.py [overrides ...]`.

The rate of each epoch's steps, over a run of `trainer.max_epochs`. What follows a metric is shown
one that improves for the first quarter of the run. `scheduler=... scheduler.<key>=...` draws that
one option, changed.
"""

import sys
from pathlib import Path
from typing import Any

from goldilocks.cli.main import refusals
from goldilocks.cli.script import ScriptParser, picture
from goldilocks.config.options import options

STEPS = 20  # in an epoch


def main() -> int:
    parser = ScriptParser(__doc__).takes_overrides()
    parser.add_argument(
        "--output",
        type=picture,
        default=Path("logs/schedules.png"),
        help="default: logs/schedules.png",
    )
    given = parser.parse_args()
    with refusals() as outcome:
        chosen = [
            word.partition("=")[2] for word in given.overrides if word.startswith("scheduler=")
        ]
        curves = {name: rates(name, given.overrides) for name in chosen or options("scheduler")}
        draw(curves, given.output)
        print(given.output)
    return outcome.code


def rates(name: str, overrides: list[str]) -> tuple[list[float], list[float]]:
    """The epoch (as a fraction) and the rate of every step of a run with a schedule."""
    import torch

    from goldilocks.config.compose import compose
    from goldilocks.optimizers.optimizer import learning_rate, try_optimizer
    from goldilocks.schedulers.schedule import build_schedule
    from goldilocks.training.checks import check

    words = [word for word in overrides if not word.startswith("scheduler=")]
    settings = check(compose([f"scheduler={name}", *words])[0])
    epochs: int = settings.trainer["max_epochs"]
    torch.manual_seed(settings.seed)
    optimizer: Any = try_optimizer(settings.optimizer, settings.packages)
    length = {"steps_per_epoch": STEPS, "max_epochs": epochs}
    schedule = build_schedule(settings.scheduler, optimizer, **length, packages=settings.packages)
    places, found = [], []
    for epoch in range(epochs):
        for step in range(STEPS):
            places.append(epoch + step / STEPS)
            found.append(learning_rate(optimizer))
            optimizer.step()
            schedule.on_step()
        schedule.on_epoch_end(
            {str(schedule.monitor): improving(epoch / epochs, settings.objective["mode"])}
        )
    return places, found


def improving(share: float, mode: str) -> float:
    """A metric that improves for a quarter of the run and stays."""
    gained = min(share, 0.25)
    return 0.5 + gained if mode == "max" else 0.5 - gained


def draw(curves: dict[str, tuple[list[float], list[float]]], output: Path) -> None:
    """Small multiples, one for each schedule, as a picture in a file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(3.2 * columns, 2.2 * rows), squeeze=False
    )
    for axis, (name, (places, found)) in zip(axes.flat, curves.items(), strict=False):
        axis.plot(places, found, linewidth=1.2)
        axis.set_title(name, fontsize=10)
        axis.set_ylim(0, None)
        axis.tick_params(labelsize=8)
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(curves) :]:
        axis.set_axis_off()
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel("learning rate", fontsize=10)
    figure.tight_layout()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
