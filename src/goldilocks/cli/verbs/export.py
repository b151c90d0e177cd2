"""Writes a finished run's network for other programs, as ONNX or for torch.

RUN is a run folder or `last`. Beside `model.onnx` or `model.pt2` there is `preparation.json`: how
rows become the graph's input. The graph is compared with the checkpoint's predictions; exit code 1
if they differ by more than 1e-5.
"""

import sys
from pathlib import Path

from goldilocks.cli.main import refusals
from goldilocks.cli.script import RUN, ScriptParser


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("run", help=RUN)
    parser.add_argument(
        "--format", choices=["onnx", "torch_export"], default="onnx", help="default: onnx"
    )
    parser.add_argument("--output", type=Path, help="a folder (default: export in the run folder)")
    parser.add_argument("--log-dir", default="logs", help="where `last` looks (default: logs)")
    given = parser.parse_args()
    with refusals() as outcome:
        from goldilocks.inference.export import TOLERANCE, export
        from goldilocks.inference.predict import load
        from goldilocks.runs.folder import find_run

        folder = find_run(given.run, given.log_dir, ensembles=True)
        done = export(load(folder), given.output or folder / "export", given.format)
        rows = (
            f"{done.rows:,}"
            f" {'of the rows' if done.real else 'rows drawn from the ranges of the training rows'}"
        )
        print(
            f"largest difference to the checkpoint's predictions {done.difference:.1e} of the"
            f" largest, on {rows}"
        )
        if done.file is None:
            print(f"error: that is more than {TOLERANCE:g}; nothing was kept", file=sys.stderr)
            outcome.code = 1
        else:
            print(f"{done.file}\n{done.file.with_name('preparation.json')}")
    return outcome.code
