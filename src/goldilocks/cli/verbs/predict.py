"""Predicts the rows of a file with a finished run.

RUN is a run folder or `last`. The rows are kept as they are; `predicted_TARGET` comes after them,
and for classes `probability_CLASS` for each; with `--interval 0.9` `lower_TARGET` and
`upper_TARGET`, with `--set 0.9` `set_CLASS`. Where the file has the target too, the metrics are
printed. Values that the training rows did not have are listed by column: numbers and dates that
cannot be read or are out of range, unseen categories.
"""

import sys
from pathlib import Path

from goldilocks.cli.main import refusals
from goldilocks.cli.script import RUN, ScriptParser


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("run", help=RUN)
    parser.add_argument("file", type=Path, help="CSV and its likes, packed or not, or Parquet")
    parser.add_argument(
        "--output", type=Path, default=Path("predictions.csv"), help="default: predictions.csv"
    )
    parser.add_argument(
        "--separator", help="between the columns (default: as in training, or found out)"
    )
    parser.add_argument("--encoding", help="of the text (default: as in training, or found out)")
    parser.add_argument(
        "--strict", action="store_true", help="refuse values that the training rows did not have"
    )
    parser.add_argument(
        "--safe-csv",
        action="store_true",
        help="put a ' in front of words that a spreadsheet would take for a formula",
    )
    parser.add_argument(
        "--interval",
        type=float,
        metavar="0.9",
        help="of a regression: lower_ and upper_ ends between which that share of rows is",
    )
    parser.add_argument(
        "--set",
        type=float,
        metavar="0.9",
        help="of classes: which are in a set, set_CLASS, that has the true one in that share",
    )
    parser.add_argument("--log-dir", default="logs", help="where `last` looks (default: logs)")
    given = parser.parse_args()
    with refusals() as outcome:
        from dataclasses import replace

        from goldilocks.errors import Refused
        from goldilocks.inference.predict import load
        from goldilocks.inference.predict_file import layout_of, predict_file

        predictor = load(given.run, given.log_dir, given.strict)
        own, other = ("interval", "set")[:: 1 if predictor.spec.task == "regression" else -1]
        if (level := getattr(given, other)) is not None:
            share = level if 0 < level < 1 else 0.9
            raise Refused(
                f"--{other} {level:g}: {given.run} predicts"
                f" {'values' if own == 'interval' else 'classes'}; write --{own} {share:g}"
            )
        said = {
            name: getattr(given, name)
            for name in ("separator", "encoding")
            if getattr(given, name) is not None
        }
        layout = replace(layout_of(predictor), **said)
        level = getattr(given, own)
        done = predict_file(predictor, given.file, given.output, layout, given.safe_csv, level)
        if done.ignored:
            print(
                f"ignored columns, which the network does not take: {', '.join(done.ignored)}",
                file=sys.stderr,
            )
        for strange in done.strange:
            print(f"warning: {strange}", file=sys.stderr)
        if done.metrics:
            moved = predictor.calibration.threshold != 0.5
            of_a_half = "; a threshold of 0.5 is what they are of" * moved
            measured = ", ".join(f"{name} {value:.4f}" for name, value in done.metrics.items())
            print(
                f"{measured} of the {done.compared:,} rows that have"
                f" {', '.join(predictor.spec.target_names)}{of_a_half}"
            )
        print(f"{done.rows:,} rows in {given.output}")
    return outcome.code
