"""What makes training faster, and does not change what comes out."""

import importlib.util
import math
import shutil

import pytest
import torch
from pytorch_lightning.plugins.precision import MixedPrecision

import goldilocks.training.module
from fitting import fit, make, sgd, vector
from goldilocks.errors import Refused
from goldilocks.machine.devices import Plan
from goldilocks.runs.request import RunRequest
from goldilocks.runs.run import run
from goldilocks.training.components import prepare
from goldilocks.training.trainer import check_compile, check_precision


def test_a_precision_that_a_gpu_emulates_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation
    )
    old, apple = Plan("cuda", 1, 1, "single"), Plan("mps", 1, 1, "single")
    check_precision("16-mixed", old)
    with pytest.raises(
        Refused,
        match=r"^trainer\.precision=bf16-mixed: Tesla T4 has no bf16; write 16-mixed or 32$",
    ):
        check_precision("bf16-mixed", old)
    with pytest.raises(Refused, match="no 64 bits"):
        check_precision(64, apple)


def test_without_a_compiler_compiling_is_refused(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for kind, message in (("cpu", r"C\+\+ compiler"), ("cuda", "triton")):
        with pytest.raises(Refused, match=message):
            check_compile(True, Plan(kind, 1, 1, "single"))
        check_compile(False, Plan(kind, 1, 1, "single"))


def test_the_layout_of_images_changes_nothing_but_rounding(compose):
    found = []
    for value in ("false", "true"):
        parts = prepare(
            compose("data=digits", "model=cnn", "trainer=cpu", f"trainer.channels_last={value}")
        )
        x = parts.data.tensors["train"][0][:8]
        if value == "true":
            parts.module.to(memory_format=torch.channels_last)
            x = x.contiguous(memory_format=torch.channels_last)
        parts.module.network.eval()
        found.append(parts.module.network(x))
    torch.testing.assert_close(*found)
    with pytest.raises(Refused, match=r"^trainer\.channels_last=true: is for images"):
        prepare(compose("data=iris", "trainer.channels_last=true"))


COMPILED = [
    "data=wine",
    "model=deep",
    "trainer.gradient_clip_val=0.5",
    "trainer.max_epochs=3",
    "callbacks=none",
]


def trained_weights(compose, tmp_path, *words):
    cfg = compose("logger=none", *words)
    parts = prepare(cfg)
    result = run(RunRequest(cfg, tmp_path), parts)
    assert result["status"] == "done"
    return {key: value.cpu() for key, value in parts.module.network.state_dict().items()}, result


@pytest.mark.filterwarnings("ignore")  # what torch's compiler says of torch
@pytest.mark.slow  # half a minute of compiling; a row of docs/options.md compiles a smaller network
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize(
    "more", [[], ["trainer.accumulate_grad_batches=2", "regularization=[l2,ema]"]]
)
def test_compiled_it_trains_the_same(compose, tmp_path, more):
    """With a last batch of fewer rows."""
    words = ["trainer=cpu", *COMPILED, *more]
    plain, _ = trained_weights(compose, tmp_path, *words)
    compiled, result = trained_weights(compose, tmp_path, *words, "trainer.compile=true")
    assert result["seconds"]["compile"] > 0
    assert plain.keys() == compiled.keys()
    for key, value in plain.items():
        torch.testing.assert_close(value, compiled[key], rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # Lightning asks for a GPU
@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_unscaled_before_they_are_clipped(fused, monkeypatch):
    """By a scaler of the CPU. Lightning leaves it to a fused step to unscale,
    which comes after clipping.
    """
    monkeypatch.setattr(
        goldilocks.training.module, "flattened", lambda optimizer: None
    )  # as on a GPU
    limit = {
        "gradient_clip_val": 0.1,
        "max_epochs": 2,
        "optimizer": lambda groups: sgd(groups, fused=fused),
    }
    plain, scaled = make(**limit), make(**limit)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled.trainer.strategy._precision_plugin = MixedPrecision("bf16-mixed", "cpu")
    scaled.trainer.strategy._precision_plugin.scaler = scaler
    for made in (plain, scaled):
        made.trainer.fit(made.module, made.data)
    moved = vector(plain.network) - vector(make(**limit).network)
    assert scaler.get_scale() == 1024.0
    assert (vector(scaled.network) - vector(plain.network)).norm() < 0.02 * moved.norm()
    norms = [float(fitted.history.metrics[0]["gradient_norm"]) for fitted in (plain, scaled)]
    assert norms[1] == pytest.approx(norms[0], rel=0.02)


# --- on a GPU -------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed", "bf16-true"])
@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_clipped_after_unscaling(precision, algorithm, fused):
    """The gradients of each step, as the optimizer gets them, against the limit;
    and never far below it.
    """
    clipping = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": algorithm}
    clipping["optimizer"] = lambda groups: sgd(groups, fused=fused)
    steps = fit(accelerator="gpu", precision=precision, **clipping).log.gradients
    seen = [
        float(step.float().norm() if algorithm == "norm" else step.float().abs().max())
        for step in steps
    ]
    finite = [value for value in seen if math.isfinite(value)]  # a scaler skips its first steps
    assert len(finite) >= len(seen) // 2
    assert all(value <= 0.01 * 1.01 for value in finite)
    assert max(finite) > 0.0099


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "more", [[], ["trainer.accumulate_grad_batches=2"], ["regularization=[l2,ema]"]]
)
def test_compiled_on_a_gpu_it_trains_the_same(compose, tmp_path, more):
    words = ["trainer=gpu", "trainer.matmul=highest", *COMPILED, *more]
    plain, _ = trained_weights(compose, tmp_path, *words)
    compiled, result = trained_weights(compose, tmp_path, *words, "trainer.compile=true")
    assert result["seconds"]["compile"] > 0
    for key, value in plain.items():
        torch.testing.assert_close(value, compiled[key], rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "words",
    [["trainer.channels_last=true"], ["trainer.compile=true", "trainer.channels_last=true"]],
)
def test_images_train_in_16_bits_with_the_channels_last(compose, tmp_path, words):
    more = [
        "data=digits",
        "model=cnn",
        "trainer=gpu",
        "trainer.precision=bf16-mixed",
        "trainer.max_epochs=5",
    ]
    more += ["trainer.channels_last=true"]
    _, result = trained_weights(compose, tmp_path, *more, *words)
    assert result["metrics"]["val/accuracy"] > 0.9


@pytest.mark.gpu
def test_a_deterministic_run_gives_the_same_weights_twice(compose, tmp_path):
    words = [
        "data=digits",
        "model=cnn",
        "trainer=gpu",
        "trainer.deterministic=true",
        "trainer.max_epochs=3",
    ]
    one, two = (trained_weights(compose, tmp_path, *words)[0] for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)


SHARED = [
    "trainer.matmul=highest",
    "data=wine",
    "model=deep",
    "model.norm=none",
    "optimizer=sgd",
    "callbacks=none",
]
SHARED += ["trainer.max_epochs=3", "trainer.gradient_clip_val=0.5"]
SHARED += ["+callbacks.last_checkpoint._target_=goldilocks.callbacks.LastCheckpoint"]


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_all_gpus_train_as_one_does_with_the_whole_batch(compose, tmp_path, strategy):
    """Where there is one GPU, one process trains as several would."""
    rows = {"gpu": 16 * torch.cuda.device_count(), strategy: 16}
    found = []
    for option, batch_size in rows.items():
        folder = tmp_path / option
        folder.mkdir()
        trained_weights(
            compose, folder, f"trainer={option}", f"data.batch_size={batch_size}", *SHARED
        )
        found.append(
            torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        )
    for key, value in found[0].items():
        torch.testing.assert_close(value.cpu(), found[1][key].cpu(), rtol=1e-4, atol=1e-4)
