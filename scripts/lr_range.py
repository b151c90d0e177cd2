"""The learning-rate range test alone:
`python scripts/lr_range.py [overrides ...]`, which are those of train.py.

Prints the rate that every rule suggests, the one that `optimizer.lr=auto` would use marked,
and draws the losses.
"""

import sys
from pathlib import Path

from goldilocks.cli.main import refusals
from goldilocks.cli.script import ScriptParser, picture

MEANINGS = {
    "fall": "two thirds of the first rate at which nine tenths of the fall are done",
    "minimum": "a fifth of the rate with the lowest loss",
    "steepest": "where the loss falls fastest",
    "valley": "in the middle of the longest fall",
    "half_divergence": "half the rate that diverges",
}


def main() -> int:
    parser = ScriptParser(__doc__).takes_overrides()
    parser.add_argument(
        "--output",
        type=picture,
        default=Path("logs/lr_range.png"),
        help="default: logs/lr_range.png",
    )
    given = parser.parse_args()
    with refusals() as outcome:
        from rich.console import Console
        from rich.table import Table

        from goldilocks.config.compose import compose
        from goldilocks.training.components import prepare
        from goldilocks.training.lr_range.rules import draw_range_test
        from goldilocks.training.lr_range.sweep import range_test

        words = [word for word in given.overrides if not word.startswith("optimizer.lr=")]
        parts = prepare(compose([*words, "optimizer.lr=auto"])[0])
        test = range_test(parts.module, parts.data, parts.settings.trainer, parts.settings.lr_range)
        table = Table("rule", "rate", "", box=None, pad_edge=False)
        for rule, meaning in MEANINGS.items():
            rate = test.points[rule]
            shown = "none" if rate is None else f"{rate:.3g}"
            table.add_row(rule, shown, meaning + (" (used)" if rule == test.rule else ""))
        console = Console(highlight=False, soft_wrap=True)
        console.print(table)
        given.output.parent.mkdir(parents=True, exist_ok=True)
        draw_range_test(test).savefig(given.output, dpi=110)
        if test.rate is not None:
            console.print(
                f"python train.py {' '.join([*words, f'optimizer.lr={test.rate:.3g}'])}",
                markup=False,
            )
        console.print(given.output, markup=False)
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
