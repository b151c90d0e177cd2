"""Runs that train together end as they do alone."""

import pytest
from together import checkpoint, one_by_one, together

RATES = [["optimizer.lr=0.01"], ["optimizer.lr=0.003", "seed=1"], ["optimizer.lr=0.001", "seed=2"]]
# What all runs of a case have, and what each has of its own.
CASES = {
    "seeds and rates": ([], RATES),
    **{
        optimizer: ([f"optimizer={optimizer}"], RATES)
        for optimizer in (
            "sgd",
            "momentum",
            "nesterov",
            "adam",
            "adamw",
            "nadam",
            "radam",
            "rmsprop",
            "adamax",
            "adagrad",
            "adadelta",
        )
    },
    **{
        f"schedule {schedule}": ([f"scheduler={schedule}"], RATES)
        for schedule in (
            "cosine",
            "cosine_restarts",
            "coslog4",
            "exponential",
            "multistep",
            "onecycle",
            "plateau",
            "polynomial",
            "step",
            "warmup_cosine",
            "wsd",
        )
    },
    "betas": ([], [["optimizer.betas=[0.9,0.99]"], ["optimizer.betas=[0.8,0.999]"], ["seed=3"]]),
    "momenta": (["optimizer=momentum"], [["optimizer.momentum=0.5"], ["optimizer.momentum=0.9"]]),
    "decay": (
        ["optimizer=adamw"],
        [["optimizer.weight_decay=0.3"], ["optimizer.weight_decay=0.01"]],
    ),
    "coupled decay": (
        ["optimizer=sgd"],
        [["optimizer.weight_decay=0.1"], ["optimizer.weight_decay=0.01"]],
    ),
    "l1 and l2": (
        [],
        [
            ["regularization=[l1,l2]", "regularization.l1=0.001", "regularization.l2=0.1"],
            ["regularization=l2", "regularization.l2=0.01"],
            [],
        ],
    ),
    "max_norm": ([], [["regularization=max_norm", "regularization.max_norm=0.5"], [], RATES[1]]),
    "label smoothing": (
        [],
        [
            ["regularization=label_smoothing", f"regularization.label_smoothing={s}"]
            for s in (0.1, 0.3)
        ]
        + [[]],
    ),
    "clip by norm": (
        [],
        [["trainer.gradient_clip_val=0.1"], ["trainer.gradient_clip_val=1"], []],
    ),
    "clip by value": (
        [],
        [
            ["trainer.gradient_clip_val=0.01", "trainer.gradient_clip_algorithm=value"],
            ["trainer.gradient_clip_val=0.5"],
            [],
        ],
    ),
    "gradient noise": ([], [["regularization=gradient_noise"], []]),
    "ema": ([], [["regularization=ema", "regularization.ema=0.9"], [], ["seed=4"]]),
    "swa": (["model.norm=batch"], [["regularization=swa", "regularization.swa=0.5"], []]),
    "class weights": (["task.class_weight=balanced", "data=breast_cancer"], RATES),
    "weights and smoothing": (
        ["task.class_weight=balanced", "regularization=label_smoothing"],
        [
            ["regularization.label_smoothing=0.1"],
            ["regularization.label_smoothing=0.2"],
            ["seed=1", "regularization.label_smoothing=0.1"],
        ],
    ),
    "accumulation": (["trainer.accumulate_grad_batches=3"], RATES),
    "lengths": ([], [["trainer.max_epochs=2"], ["trainer.max_epochs=5"], []]),
    "one leaves, and the others stay": (
        ["scheduler=onecycle", "regularization=ema", "regularization.ema=0.9"],
        [["trainer.max_epochs=2"], *([f"seed={seed}"] for seed in range(1, 5))],
    ),
    "patience": (
        ["trainer.max_epochs=8"],
        [["callbacks.early_stopping.patience=0", "optimizer.lr=1"], ["seed=1"], ["seed=2"]],
    ),
    "steps": (["trainer.max_steps=13"], RATES),
    "no validation": (["data.val_fraction=0", "objective.metric=train/loss"], RATES),
    "few validation rows": (["trainer.limit_val_batches=1"], RATES),
    "rare validation": (["trainer.check_val_every_n_epoch=2"], RATES),
    "regression": (["data=diabetes"], RATES),
    "losses": (
        ["data=diabetes"],
        [["loss=huber"], ["loss=huber", "loss.delta=0.5"], ["loss=mse"], ["loss=quantile"]],
    ),
    "two classes": (["data=breast_cancer"], RATES),
    "batch norm": (["model.norm=batch"], RATES),
    "layer norm": (["model.norm=layer"], RATES),
    "deep": (["model=deep", "model.width=8"], RATES),
    "selfnorm": (["model=selfnorm", "model.width=8"], RATES),
    "linear": (["model=linear", "~model.width"], RATES),
    # A bias before batch normalisation has no gradient but for rounding, which Adam would scale up.
    "resnet": (["model=resnet", "model.width=8", "optimizer=momentum"], RATES),
    "realmlp": (["model=realmlp", "model.width=8"], [["optimizer.lr=1e-4"], ["optimizer.lr=1e-5"]]),
    "tabm": (["model=tabm", "model.width=8", "model.k=4"], RATES),
    "periodic": (["model.embedding=periodic"], RATES),
    "cnn": (["model=cnn", "data=digits", "trainer.limit_train_batches=4"], RATES),
}


# Each kind once in the ordinary suite.
OFTEN = {
    "momentum",
    "nadam",
    "schedule onecycle",
    "schedule plateau",
    "decay",
    "l1 and l2",
    "label smoothing",
    "clip by norm",
    "ema",
    "weights and smoothing",
    "accumulation",
    "one leaves, and the others stay",
    "losses",
    "realmlp",
    "tabm",
}


@pytest.mark.parametrize(
    "case", [c if c in OFTEN else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_the_weights_are_those_of_runs_alone(case, tmp_path):
    shared, each = CASES[case]
    trials = [[*shared, *own] for own in each]
    alone = one_by_one(tmp_path / "alone", trials)
    found = together(tmp_path / "together", trials)
    for number, (before, after) in enumerate(zip(alone, found, strict=True)):
        assert after["status"] == before["status"] == "done", (before["error"], after["error"])
        for key in ("epochs", "steps", "best_epoch", "num_parameters", "learning_rate"):
            assert after[key] == before[key], key
        assert after["metrics"].keys() == before["metrics"].keys()
        # A metric that counts rows moves by whole ones.
        assert after["metrics"] == pytest.approx(before["metrics"], rel=1e-3, abs=2e-2)
        for name in ("last", "best"):
            one, other = (checkpoint(tmp_path / how, number, name) for how in ("alone", "together"))
            for key, weight in one["state_dict"].items():
                assert distance(other["state_dict"][key], weight) < 1e-5, key


LONG = [case for case in CASES if case not in ("lengths", "patience", "steps", "cnn")]


@pytest.mark.slow
@pytest.mark.parametrize("case", LONG)
def test_after_two_hundred_steps_too(case, tmp_path):
    shared, each = CASES[case]
    trials = [[*shared, *own, "trainer.max_epochs=35", "trainer.max_steps=200"] for own in each]
    trials = [[*trial, "callbacks.early_stopping=null"] for trial in trials]
    one_by_one(tmp_path / "alone", trials)
    together(tmp_path / "together", trials)
    for number in range(len(trials)):
        one, other = (checkpoint(tmp_path / how, number) for how in ("alone", "together"))
        assert one["global_step"] == other["global_step"]
        for key, weight in one["state_dict"].items():
            assert distance(other["state_dict"][key], weight) < 1e-4, key


@pytest.mark.slow
@pytest.mark.parametrize("data", ["digits", "wine", "diabetes"])
def test_the_same_of_64_trials_is_the_best(data, tmp_path):
    rates = (0.0003, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01)
    trials = [
        [f"data={data}", f"optimizer.lr={rate}", f"seed={seed}", "data.batch_size=32"]
        for rate in rates
        for seed in range(8)
    ]
    found = [of(tmp_path / of.__name__, trials) for of in (one_by_one, together)]
    values = [[result["objective"]["value"] for result in results] for results in found]
    assert values[1] == pytest.approx(values[0], rel=1e-3)
    assert values[1].index(min(values[1])) == values[0].index(min(values[0]))


@pytest.mark.gpu
def test_runs_train_together_on_a_gpu(tmp_path):
    trials = [["trainer=gpu", *own] for own in RATES]
    alone = one_by_one(tmp_path / "alone", trials)
    found = together(tmp_path / "together", trials)
    for before, after in zip(alone, found, strict=True):
        assert after["status"] == "done", after["error"]
        assert after["metrics"] == pytest.approx(before["metrics"], rel=1e-2, abs=1e-3)


def distance(one, other):
    """Relative to the length of the second, of tensors of one layer."""
    return ((one - other).double().norm() / other.double().norm().clamp(min=1e-3)).item()
