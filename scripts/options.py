"""The proof that every option does what it says: `python scripts/options.py [--only WORD] [--write]`.

Measures every row, prints it, and ends with exit code 1 if one does not hold or an option has no row. `--write` makes
docs/options.md of it.
"""

import argparse
import signal
import sys
import time
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "options.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument(
        "--only", default="", help="rows whose option or guide row contains this word"
    )
    parser.add_argument("--write", action="store_true", help="write docs/options.md")
    given = parser.parse_args()
    if given.only and given.write:
        parser.error("--write needs all rows: leave --only out")
    import torch

    from goldilocks.training.trainer import quiet_libraries
    from proofs import table
    from proofs.guide import ADVICE, LATER

    interrupted: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: interrupt(interrupted, number))
    torch.set_num_threads(1)
    quiet_libraries()
    rows = table.rows()
    measured = {}
    for row in [row for row in rows if given.only in row.option or given.only in row.guide]:
        began = time.perf_counter()
        try:
            measured[row.option] = text, holds = row.result()
        finally:
            if interrupted:  # a run ends well by it, and Lightning by an exit
                raise KeyboardInterrupt
        took = time.perf_counter() - began
        print(
            f"{'holds' if holds else 'FAILS'}  {row.option:<40} {took:5.2f} s  {text}", flush=True
        )
    wrong = [option for option, (_, holds) in measured.items() if not holds]
    gaps = [] if given.only else table.without_row(table.needed(), rows)
    for gap in gaps:
        print(gap)
    if not measured:
        parser.error(f"--only {given.only}: no row has this word")
    print(f"{len(measured) - len(wrong)} of {len(measured)} rows hold")
    if given.write:
        PAGE.write_text(table.page(measured, rows, ADVICE, LATER), encoding="utf-8")
    return 1 if wrong or gaps else 0


def interrupt(seen: list[int], number: int) -> None:
    """What Ctrl-C and `kill` do: nothing half measured is written down."""
    seen.append(number)
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
