"""What the tests share: the command line in this process, in an empty folder."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "data=iris",
    "trainer.max_epochs=2",
    "trainer=cpu",
    "callbacks.progress_bar=null",
    "callbacks.baselines=null",
]  # a run of a moment


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small networks are faster on one thread, and tests run side by side."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell starts what it runs in the background with SIGINT ignored,
    which its processes inherit.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests find out about this machine is not for its user's runs;
    processes that they start inherit it.
    """
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def compose() -> Iterator[Callable[..., DictConfig]]:
    """Composes a configuration as the command line does."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    from goldilocks.config.compose import prepare_hydra
    from goldilocks.config.places import CONF
    from goldilocks.config.search_ranges import of_run

    def composed(*overrides: str, whole: bool = False) -> DictConfig:
        """Of a run; the whole of it has what is a sweep's too."""
        prepare_hydra()
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra_compose("train", overrides=list(overrides))
        return cfg if whole else of_run(cfg)

    yield composed
    GlobalHydra.instance().clear()


@pytest.fixture
def train_two_steps(tmp_path: Path) -> Callable:
    """Trains and checks what every run must result in; returns its parts and its result."""
    from goldilocks.runs.request import RunRequest
    from goldilocks.runs.run import run
    from goldilocks.training.components import prepare

    def trained(cfg):
        parts = prepare(cfg)
        before = {
            name: weight.detach().clone()
            for name, weight in parts.module.network.named_parameters()
        }
        result = run(RunRequest(cfg, tmp_path), parts)
        assert result["error"] is None
        assert (result["status"], result["steps"]) == ("done", 2)
        assert result["epochs"] == (2 if parts.module.batches_in_epoch == 1 else 1)
        assert read_result(tmp_path) == result
        after = dict(parts.module.network.named_parameters())
        assert before.keys() == after.keys()
        still = [name for name in before if torch.equal(before[name], after[name])]
        if cfg.optimizer._target_.endswith(
            "Lion"
        ):  # moves by the sign: one step there and one back
            still = [name for name in still if before[name].numel() > 3]
        assert still == []  # all have moved
        assert all(weight.isfinite().all() for weight in after.values())
        return parts, result

    return trained


@pytest.fixture
def openml_stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `sklearn.datasets.fetch_openml` would fetch, a few rows of it:
    tests never touch the network.
    """
    import numpy as np
    import sklearn.datasets

    from goldilocks.data.sources import idx_images, openml

    def fetch_openml(name: str, **options: object) -> SimpleNamespace:
        random = np.random.default_rng(0)
        words = (
            [str(digit) for digit in range(10)]
            if name in ("mnist_784", "Fashion-MNIST")
            else ["no", "yes"]
        )
        label = (np.arange(300) % len(words))[:, None]
        features = random.integers(0, 256, size=(300, 784 if len(words) == 10 else 5))
        return SimpleNamespace(
            data=np.hstack([features, label]).astype(float),
            feature_names=[*(f"x{number}" for number in range(features.shape[1])), "class"],
            categories={"class": words},
            details={"default_target_attribute": "class", "version": "1"},
        )

    def forget() -> None:
        for remembered in (openml.load_openml, idx_images.fetch_images, idx_images.read_folder):
            remembered.cache_clear()

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch_openml)
    monkeypatch.setattr(idx_images, "TEST_ROWS", 60)
    forget()
    yield
    forget()


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> Callable:
    """Runs `python train.py WORDS` in this process, in an empty folder;
    returns code, out, err and folder.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))

    def run(*words: str) -> SimpleNamespace:
        import train

        before = set(tmp_path.glob("logs/runs/*"))
        monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py"), *words])
        GlobalHydra.instance().clear()
        capfd.readouterr()
        code = train.main()
        out, err = capfd.readouterr()
        new = sorted(set(tmp_path.glob("logs/runs/*")) - before)
        return SimpleNamespace(
            code=code, out=out, err=err, folder=new[0] if len(new) == 1 else None, new=new
        )

    return run


def read_result(folder: Path) -> dict:
    """The result.json of a folder."""
    return json.loads((folder / "result.json").read_text())
