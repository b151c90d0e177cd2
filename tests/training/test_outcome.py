"""The best network of a run, which several look at after it has ended."""

from pathlib import Path

import torch

from conftest import SMALL
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.training.checkpoints import load_checkpoint
from goldilocks.training.components import prepare
from goldilocks.training.outcome import best_network


def test_best_network_is_read_again_where_its_file_is_written_again(
    tmp_path: Path, compose
) -> None:
    cfg = compose(*SMALL, "callbacks.evaluation=null", "logger=csv")
    parts = prepare(cfg)
    run(RunRequest(cfg, tmp_path), parts)
    path = tmp_path / "checkpoints/best.ckpt"
    before = best_network(parts.module, path)
    assert best_network(parts.module, path) is before
    state = load_checkpoint(path)
    state["state_dict"] = {name: torch.zeros_like(of) for name, of in state["state_dict"].items()}
    torch.save(state, path)
    assert all(not weight.any() for weight in best_network(parts.module, path).parameters())
