"""Rows that do not fit on the device: the same batches, gathered ahead of time."""

import threading

import pytest
import torch

from goldilocks.data import base, prefetch
from goldilocks.data.loaders import TensorLoader
from goldilocks.data.prefetch import PrefetchingLoader
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.training.components import prepare

CPU = torch.device("cpu")
X, Y = torch.randn(103, 4, generator=torch.Generator().manual_seed(0)), torch.arange(103)


def batches(loader):
    return [(x, y) for item in loader for x, y in item.split()]


def assert_same(ours, theirs):
    for (x, y), (other_x, other_y) in zip(ours, theirs, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


@pytest.mark.parametrize(
    "words", [{"shuffle_seed": 3}, {}, {"shuffle_seed": 1, "rank": 1, "world": 2, "least": 2}]
)
@pytest.mark.parametrize("together", [1, 5, 64])
def test_the_batches_are_the_same(words, together):
    words = {"batch_size": 8, "batches_per_item": together, **words}
    direct, ahead = TensorLoader(X, Y, **words), PrefetchingLoader(X, Y, device=CPU, **words)
    for epoch in range(2):
        direct.set_epoch(epoch)
        ahead.set_epoch(epoch)
        assert_same(batches(direct), batches(ahead))
        assert [item.weights for item in direct] == [item.weights for item in ahead]


def test_items_of_large_rows_are_small(monkeypatch):
    monkeypatch.setattr(prefetch, "ITEM_BYTES", 3 * 8 * X[0].nbytes)
    loader = PrefetchingLoader(X, Y, device=CPU, batch_size=8, batches_per_item=64)
    assert loader.batches_per_item == 3
    assert max(len(item.x) for item in loader) == 24
    assert_same(batches(loader), batches(TensorLoader(X, Y, batch_size=8)))


def test_what_the_thread_raises_reaches_the_loop(monkeypatch):
    def broken(self, item):
        raise OSError("gone")

    monkeypatch.setattr(PrefetchingLoader, "gather", broken)
    with pytest.raises(OSError, match="gone"):
        next(iter(PrefetchingLoader(X, Y, device=CPU, batch_size=8)))


def test_an_iteration_that_is_left_leaves_no_thread():
    before = threading.active_count()
    iteration = iter(PrefetchingLoader(X, Y, device=CPU, batch_size=8))
    next(iteration)
    assert threading.active_count() > before
    iteration.close()
    assert threading.active_count() == before


def trained(compose, folder, *words):
    folder.mkdir()
    cfg = compose("data=wine", "model=deep", "trainer.max_epochs=2", "logger=none", *words)
    parts = prepare(cfg)
    result = run(RunRequest(cfg, folder), parts)
    assert result["status"] == "done"
    assert result["diagnosis"] is not None
    return parts


def assert_same_weights(one, other):
    ours, theirs = one.module.network.state_dict(), other.module.network.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_run_does_not_tell_the_difference(compose, tmp_path, monkeypatch):
    plain = trained(compose, tmp_path / "plain", "trainer=cpu")
    monkeypatch.setattr(base.TableData, "fits_on", lambda *_: False)
    ahead = trained(compose, tmp_path / "ahead", "trainer=cpu")
    assert isinstance(ahead.data.train_dataloader(), PrefetchingLoader)
    assert_same_weights(plain, ahead)


def test_what_does_not_fit_is_said(compose, capsys, monkeypatch):
    data = prepare(compose("data=wine", "trainer=cpu")).data
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (20_000, 40_000))
    assert data.fits_on(gpu, 1.0)
    assert not capsys.readouterr().err
    assert not data.fits_on(gpu, 0.25)
    assert "trainer.data_memory_fraction=0.25 of the" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.parametrize("words", [[], ["trainer.deterministic=true", "model.norm=batch"]])
def test_on_a_gpu_it_does_not_either(compose, tmp_path, words):
    plain = trained(compose, tmp_path / "plain", "trainer=gpu", *words)
    assert plain.data.tensors["train"][0].device.type == "cuda"
    ahead = trained(
        compose, tmp_path / "ahead", "trainer=gpu", "trainer.data_memory_fraction=0", *words
    )
    assert ahead.data.tensors["train"][0].device.type == "cpu"
    assert_same_weights(plain, ahead)
