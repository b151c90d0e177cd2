"""Every option that names a class of yours is found and trained for
two steps: `make test-project`.
"""

import pytest

from goldilocks.errors import Refused
from goldilocks.training.components import prepare
from yours import YOURS

# What an option needs beside its name, such as ("data", "cars"):
# ["data.path=tests/project/cars.csv"].
NEEDS: dict[tuple[str, str], list[str]] = {}
# A class of yours has to train on one of these: classes, two classes, numbers, images.
DATA = ("iris", "breast_cancer", "diabetes", "digits")


@pytest.mark.parametrize(("group", "option"), YOURS, ids=lambda word: word)
def test_an_option_of_yours_trains(group, option, compose, train_two_steps):
    words = [f"{group}={option}", *NEEDS.get((group, option), ())]
    words += ["trainer=smoke", "trainer.max_steps=2"]
    words += [f"{other}=none" for other in ("callbacks", "logger") if other != group]
    refusals = []
    for data in [[]] if group in ("data", "experiment") else [[f"data={name}"] for name in DATA]:
        cfg = compose(*words, *data)
        try:
            prepare(cfg, warn=False)
        except Refused as refused:
            refusals.append(f"{' '.join(data)}: {refused}")
            continue
        train_two_steps(cfg)
        return
    pytest.fail("\n".join(refusals))
