"""From columns to features: fitted on the training rows, the same again from plain data."""

import io

import numpy as np
import pandas as pd
import pytest
import torch

from goldilocks.data.tables.columns import describe_columns
from goldilocks.data.tables.preparation import MISSING, OTHER, Preparation, affordable_pieces

RANDOM = np.random.default_rng(0)
N = 200
FRAME = pd.DataFrame(
    {
        "size": RANDOM.normal(5, 2, N),
        "age": np.where(np.arange(N) % 10 == 3, np.nan, RANDOM.integers(0, 20, N)),
        "fuel": np.array(["gas", "diesel"])[RANDOM.integers(0, 2, N)],
        "make": pd.Series(np.array(["audi", "fiat", "ford"])[RANDOM.integers(0, 3, N)]).where(
            np.arange(N) % 7 > 0
        ),
        "town": [f"t{min(number, 29)}" for number in np.arange(N) % 40],
        "sold": pd.date_range("2024-01-01", periods=N, freq="31h"),
    }
)


def fit(frame=FRAME, given=None, **options):
    columns = describe_columns(frame, given or {}, {})
    options = {
        "scaling": "standard",
        "pieces": 0,
        "max_one_hot": 10,
        "min_category_rows": 2,
        **options,
    }
    return Preparation(columns, **options).fit(frame)


def feature(preparation, frame, name):
    return preparation.transform(frame)[:, preparation.feature_names.index(name)]


def test_every_feature_has_a_name_and_a_column():
    preparation = fit()
    features = preparation.transform(FRAME)
    assert features.shape == (N, len(preparation.feature_names)) == (N, len(preparation.owners))
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert preparation.feature_names[:3] == ("size", "age", "sold days")
    assert preparation.feature_names[9:11] == ("age missing", "fuel=gas")
    assert preparation.feature_names[-1] == "town"
    assert preparation.category_counts == (31,)
    assert preparation.owners.count("sold") == 7
    assert len(set(preparation.feature_names)) == len(preparation.feature_names)


def test_numbers_are_scaled_and_gaps_are_medians_with_a_flag():
    preparation = fit()
    gaps = FRAME["age"].isna().to_numpy()
    assert feature(preparation, FRAME, "size") == pytest.approx(
        ((FRAME["size"] - FRAME["size"].mean()) / FRAME["size"].std(ddof=0)).to_numpy(), abs=1e-5
    )
    filled = FRAME["age"].fillna(FRAME["age"].median())
    assert feature(preparation, FRAME, "age") == pytest.approx(
        ((filled - filled.mean()) / filled.std(ddof=0)).to_numpy(), abs=1e-5
    )
    assert feature(preparation, FRAME, "age missing").tolist() == gaps.astype(float).tolist()


def test_what_was_fitted_does_not_depend_on_the_rows_that_are_transformed():
    preparation = fit(FRAME.iloc[:100])
    whole, part = preparation.transform(FRAME), preparation.transform(FRAME.iloc[150:])
    assert np.array_equal(whole[150:], part)


def test_few_categories_are_features_of_0_and_1():
    preparation = fit()
    for word in ("audi", "fiat", "ford"):
        assert (
            feature(preparation, FRAME, f"make={word}").tolist()
            == (FRAME["make"] == word).astype(float).tolist()
        )
    assert (
        feature(preparation, FRAME, f"make={MISSING}").tolist()
        == FRAME["make"].isna().astype(float).tolist()
    )
    assert (
        feature(preparation, FRAME, "fuel=gas").tolist()
        == (FRAME["fuel"] == "gas").astype(float).tolist()
    )


def test_a_category_that_was_never_seen():
    frame = FRAME.head(3).assign(make="tesla", fuel="hydrogen", town="nowhere", age=np.nan)
    preparation = fit()
    names = [name for name in preparation.feature_names if name.startswith("make=")]
    assert sum(feature(preparation, frame, name).sum() for name in names) == 0
    assert feature(preparation, frame, "fuel=gas").tolist() == [0.5] * 3
    assert feature(preparation, frame, "town").tolist() == [0] * 3


def test_a_mark_of_a_missing_value_is_one_in_a_frame_that_was_read_elsewhere():
    preparation = fit()
    gone, marked = (FRAME.head(3).assign(make=word, age=word, fuel=word) for word in (None, "?"))
    assert np.array_equal(preparation.transform(marked), preparation.transform(gone))
    assert feature(preparation, marked, f"make={MISSING}").tolist() == [1, 1, 1]
    known = fit(FRAME.assign(make=FRAME["make"].replace("audi", "?")))
    assert feature(known, FRAME.assign(make="?"), f"make={MISSING}").all()


def test_rare_categories_are_one():
    frame = pd.DataFrame(
        {"make": ["a"] * 50 + ["b"] * 40 + ["c", "d", "e"], "size": RANDOM.normal(size=93)}
    )
    preparation = fit(frame)
    assert preparation.feature_names == ("size", "make=a", "make=b", f"make={OTHER}")
    assert feature(preparation, frame, f"make={OTHER}").sum() == 3
    assert feature(preparation, frame.assign(make="new"), f"make={OTHER}").sum() == 93
    assert len(fit(frame, min_category_rows=1).feature_names) == 6


def test_many_categories_are_numbers_from_the_commonest_on():
    preparation = fit()
    numbers = feature(preparation, FRAME, "town").astype(int)
    towns = preparation.columns[-2].categories
    assert towns[0] == "t29"
    assert [towns[number - 1] for number in numbers] == FRAME["town"].tolist()
    assert fit(max_one_hot=30).category_counts == ()


def test_a_missing_value_among_many_categories_has_a_number_of_its_own():
    frame = FRAME.assign(town=FRAME["town"].where(np.arange(N) % 5 > 0))
    preparation = fit(frame)
    assert preparation.category_counts == (26,)  # 24 towns are left, one for missing values, and 0
    assert set(feature(preparation, frame, "town")[::5]) == {25.0}


def test_a_number_is_cut_into_pieces_of_equally_many_rows():
    preparation = fit(FRAME[["size", "age"]], pieces=4)
    names = [name for name in preparation.feature_names if name.startswith("size from")]
    edges = np.quantile(FRAME["size"], [0, 0.25, 0.5, 0.75, 1], method="lower")
    for name, low, high in zip(names, edges[:-1], edges[1:], strict=True):
        expected = ((FRAME["size"] - low) / (high - low)).clip(0, 1) - 0.5
        assert feature(preparation, FRAME, name) == pytest.approx(expected.to_numpy(), abs=1e-6)
    beyond = FRAME.head(2).assign(size=[-1e9, 1e9])
    assert [feature(preparation, beyond, name).tolist() for name in names] == [[-0.5, 0.5]] * 4
    filled = preparation.transform(FRAME.head(1).assign(age=np.nan))
    assert np.array_equal(
        filled[:, 1:2],
        preparation.transform(FRAME.head(1).assign(age=FRAME["age"].median()))[:, 1:2],
    )
    assert fit(FRAME[["size"]].round(), pieces=100).columns[0].edges == sorted(
        set(FRAME["size"].round())
    )
    two = pd.DataFrame({"x": np.where(np.arange(N) % 3 > 0, np.nan, 1.0)})
    assert fit(two, pieces=4).feature_names == ("x", "x missing")


@pytest.mark.parametrize(
    ("rows", "numbers", "pieces"),
    [
        (5000, 5, 8),
        (2000, 14, 4),
        (1000, 5, 0),
        (5000, 200, 5),
        (5000, 1000, 0),
        (10**6, 30, 0),
        (10**6, 4, 8),
    ],
)
def test_pieces_that_a_table_bears(rows, numbers, pieces):
    assert affordable_pieces(rows, numbers) == pieces


def test_dates_are_days_and_places_in_their_cycles():
    preparation = fit(scaling="none")
    dates = FRAME["sold"]
    days = (dates - pd.Timestamp("1970-01-01")).dt.total_seconds() / 86_400
    assert feature(preparation, FRAME, "sold days") == pytest.approx(days.to_numpy(np.float32))
    angle = 2 * np.pi * (dates.dt.month - 1) / 12
    assert feature(preparation, FRAME, "sold month sin") == pytest.approx(
        np.sin(angle).to_numpy(), abs=1e-6
    )
    angle = 2 * np.pi * dates.dt.hour / 24
    assert feature(preparation, FRAME, "sold hour cos") == pytest.approx(
        np.cos(angle).to_numpy(), abs=1e-6
    )
    words = FRAME.assign(sold=dates.dt.strftime("%d.%m.%Y"))
    assert "sold hour sin" not in fit(words).feature_names
    assert feature(fit(words, scaling="none"), words, "sold days") == pytest.approx(
        np.floor(days).to_numpy()
    )


def test_plain_data_in_a_checkpoint_do_the_same_again():
    for scaling in ("standard", "robust", "quantile", "minmax", "none"):
        preparation, stream = fit(scaling=scaling), io.BytesIO()
        torch.save(preparation.as_plain(), stream)
        stream.seek(0)
        again = Preparation.from_plain(torch.load(stream, weights_only=True))
        frame = FRAME.sample(frac=1, random_state=0)[FRAME.columns[::-1]].assign(make="tesla")
        assert again.feature_names == preparation.feature_names
        assert again.category_counts == preparation.category_counts
        assert np.array_equal(again.transform(frame), preparation.transform(frame))


def test_a_table_of_one_kind_only():
    assert fit(FRAME[["size"]]).feature_names == ("size",)
    assert fit(FRAME[["fuel"]]).feature_names == ("fuel=gas",)
    assert fit(FRAME[["town"]]).category_counts == (31,)
    assert np.array_equal(
        fit(FRAME[["town"]]).transform(FRAME).squeeze(), feature(fit(), FRAME, "town")
    )
