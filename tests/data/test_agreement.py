"""`load` and predict.py agree on every frame: on made ones, whatever has read them."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import goldilocks
from finished import finished
from goldilocks.data.tables.dialect import Layout
from goldilocks.data.tables.preparation import StrangeValues
from goldilocks.inference.predict_file import predict_file
from tables import write

HEADER = ["", "size", " wide name ", "zip", "price", "abs", "day", "time"]
MARKS = st.sampled_from(["", "NA", "None", "?", "-"])
NUMBERS = st.floats(-9, 9).map(lambda value: f"{value:.3f}")
ODD = st.sampled_from(["abc", "$3", "12 kg", "1,200", "1e300", "inf", " 7 ", "True"])
ROW = st.tuples(
    st.just("0"),
    NUMBERS | MARKS | ODD,
    st.sampled_from(["red", "green", "blue", "1.0", "01"]) | MARKS | ODD,
    st.sampled_from(["01234", "04321", "10000", "1234", "9"]) | MARKS,
    NUMBERS.map(lambda word: f"${word}") | NUMBERS | MARKS | ODD,
    st.sampled_from(["true", "false", "TRUE", "False", "maybe"]) | MARKS,
    st.dates().map(str) | st.sampled_from(["soon", "13/02/2024", "20240115"]) | MARKS,
    st.sampled_from(["00:30", "17:45", "5:15 PM", "noon"]) | MARKS,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on columns of every kind, and a folder."""
    folder, random = tmp_path_factory.mktemp("agreement"), np.random.default_rng(0)
    lines = [",".join([*HEADER, "y"])]
    for row in range(80):
        size = random.normal()
        words = [
            row,
            f"{size:.3f}",
            ["red", "green", "1.0"][row % 3],
            ["01234", "04321", "10000"][row % 3],
            f"${random.normal():.2f}",
            ["true", "false"][row % 2],
            pd.Timestamp("2024-01-01") + pd.Timedelta(days=row),
            f"{row % 24:02}:30",
        ]
        lines.append(",".join([*(str(word).split(" ")[0] for word in words), f"{size:.3f}"]))
    path = write(folder / "train.csv", lines)
    return goldilocks.load(
        finished(folder, "data=table", f"data.path={path}", "data.target=y")
    ), folder


def predicted(model, frame):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StrangeValues)
        return model.predict(frame)


@settings(
    max_examples=30,
    phases=[Phase.generate],
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=st.lists(ROW, min_size=1, max_size=8))
def test_a_file_and_its_frames_are_predicted_alike(trained, rows):
    model, folder = trained
    table = pd.DataFrame(rows, columns=HEADER)
    path = folder / "rows.csv"
    table.to_csv(path, index=False)
    predict_file(model, path, folder / "out.csv", Layout())
    expected = pd.read_csv(folder / "out.csv")["predicted_y"].to_numpy()
    frames = {
        "words": pd.read_csv(path, dtype=str, keep_default_na=False),
        "values": pd.read_csv(path),
        "an index": pd.read_csv(path, index_col=0),
        "the rows themselves": table,
    }
    for name, frame in frames.items():
        found = predicted(model, frame)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6, err_msg=name)
