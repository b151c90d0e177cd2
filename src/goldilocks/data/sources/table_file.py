"""Your own table: rows of a file, its columns understood, prepared and split.

Legend: N rows, F features.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from goldilocks.data.base import Parts, Table, TableData
from goldilocks.data.splitting import given_stages, split_by_time, split_groups
from goldilocks.data.tables.card import check_table, describe_table, describe_target
from goldilocks.data.tables.columns import Column, Kind, describe, describe_columns, target_form
from goldilocks.data.tables.dialect import Layout
from goldilocks.data.tables.preparation import Preparation, affordable_pieces
from goldilocks.data.tables.reading import find_files, is_number, read_files
from goldilocks.data.tables.values import (
    MARKS,
    Form,
    classes_of,
    clean,
    dates_of,
    numbers_of,
    word_of,
    words_of,
)
from goldilocks.data.targets import OTHER_CLASSES, check_rare, infer_task, is_skewed, rare_classes
from goldilocks.errors import Refused, near_miss

Files = str | list[str]

FREQUENT = 0.05  # share of the rows, from which a mark of a missing value is a class


class TableFile(TableData):
    """A table in a file: CSV, TSV and their likes (packed too), Parquet or Feather.

    Args:
        path: Of the file, from the folder in which the command is given;
            a pattern or a list for several of the same columns.
        target: The column to predict, or several of numbers.
        columns: What columns are, by name, where that is decided otherwise than it
            should be; `drop` leaves one out.
        val_path: Files of the validation rows; null draws them.
        test_path: Files of the test rows; null draws them.
        split_column: A column that says train, val or test for each row.
        group_column: Rows of the same value in this column stay in the same part.
        time_column: Rows are split in the order of this column:
            the last are the test rows, those before the validation rows.
        separator: Between the columns of a text file; null finds out.
        header: Whether the first row names the columns; null finds out.
        encoding: Of a text file; null finds out.
        not_missing: Words that are values in a column of words, though they stand for a missing
            one elsewhere, such as NA, N/A or none.
        pieces: Into how many pieces, of equally many training rows each, every number is cut: the
            network gets how much of each lies below it, beside the number itself (piecewise linear
            encoding). auto: 8, fewer in small tables, none in those too large for it; see
            `affordable_pieces`.
        max_one_hot: Categories of a column that are given to the network as one feature each; for
            more it learns a vector for each category.
        min_category_rows: Training rows, below which a column's categories are merged.
        min_class_rows: Rows, below which a class is left out or merged;
            null refuses classes of fewer than three.
        rare_classes: What becomes of those:
            `drop` leaves their rows out, `merge` makes one class of them, `(other)`.
        drop_duplicates: Whether rows that equal a later one, in the features and the target, are
            left out before the split, so that none is in two parts.
        target_log: Whether a regression learns the logarithm of its target; auto: where the target
            is above zero and its skewness above 1, and the logarithm's less than half of that.
        options: See TableData.
    """

    def __init__(
        self,
        path: Files | None = None,
        target: Files | None = None,
        columns: dict[str | int, Kind] | None = None,
        val_path: Files | None = None,
        test_path: Files | None = None,
        split_column: str | None = None,
        group_column: str | None = None,
        time_column: str | None = None,
        separator: str | None = None,
        header: bool | None = None,
        encoding: str | None = None,
        not_missing: list[str] | None = None,
        pieces: Literal["auto"] | Annotated[int, Field(ge=0, le=1000)] = "auto",
        max_one_hot: Annotated[int, Field(ge=1)] = 32,
        min_category_rows: Annotated[int, Field(ge=1)] = 2,
        min_class_rows: Annotated[int, Field(ge=1)] | None = None,
        rare_classes: Literal["drop", "merge"] = "drop",
        drop_duplicates: bool = False,
        target_log: Literal["auto"] | bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if path is None:
            raise Refused("data.path: is missing; write data.path=FILE.csv data.target=COLUMN")
        self.path, self.parts_paths = path, {"val": val_path, "test": test_path}
        self.targets = tuple([target] if isinstance(target, str) else target or ())
        self.kinds = {str(name): kind for name, kind in (columns or {}).items()}
        self.split_column, self.group_column, self.time_column = (
            split_column,
            group_column,
            time_column,
        )
        self.not_missing = tuple(not_missing or ())
        self.layout = Layout(separator, header, encoding)
        self.pieces, self.drop_duplicates = pieces, drop_duplicates
        self.max_one_hot, self.min_category_rows, self.target_log = (
            max_one_hot,
            min_category_rows,
            target_log,
        )
        self.min_class_rows, self.rare_classes = min_class_rows, rare_classes
        ways = {
            "split_column": split_column,
            "group_column": group_column,
            "time_column": time_column,
        }
        if (
            len(
                chosen := [
                    f"data.{name}={value}" for name, value in ways.items() if value is not None
                ]
            )
            > 1
        ):
            raise Refused(
                f"{chosen[0]} and {chosen[1]}: only one of them can split the rows; leave one out"
            )
        if time_column is not None and self.folds:
            raise Refused(
                f"data.time_column={time_column}: folds would train on later rows; leave"
                " data.folds out"
            )
        self.preparation: Preparation | None = None
        self.columns: list[Column] = []
        self.notes: list[str] = []
        self.said: list[str] = []  # on the screen too
        self.target_forms: dict[str, Form] = {}
        self.described: list[dict[str, Any]] = []
        self.skewed: list[str] = []

    def setup(self, stage: str | None = None) -> None:
        """Loads, splits and prepares, once;
        afterwards `row_numbers` counts the rows without a target too.
        """
        if not self.tensors:
            super().setup(stage)
            self.row_numbers = {part: self.places[rows] for part, rows in self.row_numbers.items()}

    # --- rows -------------------------------------------------------------------------------------

    def load(self) -> Table:
        """Reads the files; rows without a target are left out."""
        import pandas as pd

        first, *_ = *self.targets, ""
        files = find_files(self.path, "data.path")
        reading = read_files(files, self.layout, "data.path", first)
        frames, self.notes, self.said = {"all": reading.frame}, list(reading.notes), []
        for stage, path in self.parts_paths.items():
            if path is not None:
                key = f"data.{stage}_path"
                frames[stage] = read_files(find_files(path, key), self.layout, key, first).frame
                check_columns(
                    list(reading.frame.columns), list(frames[stage].columns), f"{key}={path}"
                )
        stages = np.repeat(list(frames), [len(frame) for frame in frames.values()])
        names = list(reading.frame.columns)
        frame = reading.frame.copy(deep=False)  # other trials read it too
        if len(frames) > 1:
            frame = pd.concat([part[names] for part in frames.values()], ignore_index=True)
        self.check_names(frame, reading.first)
        self.described_rows(frame)
        known = self.known_targets(frame)
        values = self.read_target(frame[known])
        kept, values = self.without_rare(values)
        self.places = np.flatnonzero(known)[kept]
        if len(self.places) < len(frame):
            frame, stages = frame.iloc[self.places].reset_index(drop=True), stages[self.places]
        if self.drop_duplicates:
            once = self.unrepeated(frame)
            frame, stages, values = frame[once].reset_index(drop=True), stages[once], values[once]
            self.places = self.places[once]
        given = {stage: np.flatnonzero(stages == stage) for stage in frames if stage != "all"}
        if self.split_column is not None:
            given |= given_stages(frame[self.split_column], self.split_column)
        self.files = [str(file) for file in files]
        self.target_values = values
        table = Table(frame, self.target_values, target_names=self.targets)
        return table._replace(test_rows=given.get("test"), val_rows=given.get("val"))

    def unrepeated(self, frame: Any) -> NDArray[np.bool_]:
        """Of each row whether no later one equals it, [N]:
        of those in files of their own the test rows stay.
        """
        columns = self.columns or describe_columns(frame, self.kinds, self.roles())
        read = {"numeric": numbers_of, "date": dates_of}
        seen = frame[[*(column.name for column in columns if column.used), *self.targets]].copy()
        for column in columns:
            if column.used and column.kind in read:
                seen[column.name] = read[column.kind](seen[column.name], column.form)
        once = ~seen.duplicated(keep="last").to_numpy()
        if not once.all():
            equal = f"{np.count_nonzero(~once):,} rows that equal another one are left out"
            self.notes.append(equal)
            self.said.append(equal)
        return once

    def check_names(self, frame: Any, first: Sequence[str]) -> None:
        """Refuses columns that are named and do not exist, and a target that is none;
        `first` is the file's first row.
        """
        names = list(frame.columns)
        if not self.targets:
            raise Refused(
                f"data.target: is missing; write data.target=COLUMN: {', '.join(names[:30])}"
            )
        if repeated := [name for name in self.targets if self.targets.count(name) > 1]:
            raise Refused(f"data.target: {repeated[0]} is named twice; write each column once")
        named = [("target", target) for target in self.targets]
        named += [
            (f"{role}_column", getattr(self, f"{role}_column"))
            for role in ("split", "group", "time")
        ]
        for key, name in named:
            if name is not None and name not in names:
                hint = near_miss(name, names[:200])
                if first and looks_like_data(frame, first):
                    hint += "; if the first row is no header, write data.header=false"
                raise Refused(f"data.{key}={name}: there is no such column; {hint}")
            if name is not None and f"{name}.2" in names:
                raise Refused(f"data.{key}={name}: two columns have this name; rename one of them")
            if key != "target" and name in self.targets:
                raise Refused(f"data.{key}={name}: is the target; choose another column")
        if len(names) < 2:
            raise Refused(
                f"data.path={self.path}: has a single column; a target and features are needed"
            )

    def described_rows(self, frame: Any) -> None:
        """What the columns are, by all rows, those without a target too;
        numbers and dates are read once.
        """
        known: list[Any] = []
        if self.preparation is not None:
            self.columns = []
            known = self.preparation.columns
        else:
            self.columns = describe_columns(
                frame, self.kinds, self.roles(), not_missing=self.not_missing
            )
            known = [column for column in self.columns if column.used]
            odd = [f"{column.name}: {column.odd}" for column in known if column.odd]
            self.said += odd
        for column in known:
            if column.kind == "numeric":
                frame[column.name] = numbers_of(frame[column.name], column.form)
            elif column.kind == "date" and column.name != self.time_column:
                frame[column.name] = dates_of(frame[column.name], column.form)

    def known_targets(self, frame: Any) -> NDArray[np.bool_]:
        """Which rows have a target, [N];
        what is left out is said, and so is a mark that is taken for a class.
        """
        known = np.ones(len(frame), dtype=bool)
        gaps: dict[str, int] = {}
        for name in self.targets:
            form = self.target_forms[name] = target_form(frame[name])
            series = frame[name]
            words = form.meaning == "words"
            self.class_marks = frequent_marks(series, self.not_missing) if words else {}
            read = classes_of(series, form, self.class_marks) if self.class_marks else clean(series)
            absent = series.isna() if is_number(series) else read.isna()
            known &= ~absent.to_numpy()
            marks = series[absent].dropna().astype(object).map(word_of)
            gaps |= {mark: int(count) for mark, count in marks.value_counts().items() if mark}
        for mark, rows in self.class_marks.items():
            self.said.append(
                f"{self.targets[0]}: {mark} is a class of {rows:,} rows, and no missing value"
            )
        if not known.any():
            raise Refused(
                f"data.target={self.targets[0]}: no row has a value; choose another column"
            )
        if left := int(np.count_nonzero(~known)):
            listed = ", ".join(f"{mark} in {rows:,}" for mark, rows in gaps.items())
            self.notes.append(
                f"{left:,} row{'s' * (left > 1)} without a target {'are' if left > 1 else 'is'}"
                f" left out{f' ({listed})' if listed else ''}"
            )
            self.said.append(self.notes[-1])
        return known

    def read_target(self, frame: Any) -> NDArray[Any]:
        """The target of each row: numbers [N], or words, [N];
        several targets are numbers, [N, targets].
        """
        if len(self.targets) > 1:
            values = np.stack(
                [numbers_of(frame[name], self.target_forms[name]) for name in self.targets], axis=1
            )
            for name, column in zip(self.targets, values.T, strict=True):
                if not np.isfinite(column).all():
                    raise Refused(
                        f"data.target={name}: several targets must be numbers, and some rows have"
                        " none"
                    )
            return values
        (name,) = self.targets
        form = self.target_forms[name]
        if form.meaning not in ("numbers", "hours"):
            words = classes_of(frame[name], form, self.class_marks).to_numpy(dtype=object)
            self.check_words(name, words.astype(str))
            return words.astype(str)
        values = numbers_of(frame[name], form)
        if bad := int(np.isnan(values).sum()):
            odd = frame[name][np.isnan(values)].iloc[0]
            raise Refused(
                f"data.target={name}: {bad} of {len(values)} rows hold no number that is finite in"
                " single precision,"
                f" such as {odd}; correct them, or leave them empty"
            )
        return (
            values.astype(np.int64)
            if np.all(values == np.round(values)) and np.abs(values).max() < 2**53
            else values
        )

    def without_rare(self, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The rows that are kept of a target's, and their values:
        rare classes are left out or merged, with a note.

        Raises:
            Refused: for a class that is too rare, where nothing is said of those.
        """
        rows = np.arange(len(values))
        task = self.task if self.task != "auto" else infer_task(values)
        if task == "regression" or values.ndim > 1:
            return rows, values
        rare = rare_classes(values, self.min_class_rows or 1)
        if rare:
            is_rare = np.isin(values, list(rare))
            listed = ", ".join(f"{name} ({count:,})" for name, count in rare.items())
            merged = self.rare_classes == "merge"
            what = f"merged as {OTHER_CLASSES}" if merged else "left out"
            self.notes.append(
                f"classes of fewer than data.min_class_rows={self.min_class_rows} rows are {what}:"
                f" {listed}"
            )
            self.said.append(self.notes[-1])
            if merged:
                values = np.where(is_rare, OTHER_CLASSES, values.astype(str))
            else:
                rows, values = rows[~is_rare], values[~is_rare]
        check_rare(values, task, "data.min_class_rows")
        return rows, values

    def check_words(self, name: str, words: NDArray[Any]) -> None:
        """Refuses a target of words that are nearly all different."""
        distinct = len(np.unique(words))
        if self.min_class_rows is None and distinct > max(2, len(words) / 3):
            raise Refused(
                f"data.target={name}: {distinct} different words in {len(words)} rows are no"
                " classes;"
                " choose a column of few words, or of numbers"
            )

    # --- split ------------------------------------------------------------------------------------

    def split(self, table: Table, target: NDArray[Any], *, stratify: bool) -> Parts:
        """By groups or by time, where the user says so."""
        frame = table.features
        if self.group_column is None and self.time_column is None:
            return super().split(table, target, stratify=stratify)
        if table.test_rows is not None or table.val_rows is not None:
            key = "group_column" if self.group_column is not None else "time_column"
            raise Refused(
                f"data.{key}={getattr(self, key)}: the rows are split by files already; leave one"
                " out"
            )
        if self.group_column is not None:
            self.groups = (
                words_of(frame[self.group_column]).fillna("").to_numpy(dtype=object).astype(str)
            )
            return split_groups(
                self.groups, self.fractions, self.seed, f"data.group_column={self.group_column}"
            )
        series = frame[self.time_column]
        column = describe(series)
        times = numbers_of(series, column.form)
        if column.kind == "date" or np.isnan(times).all():
            form = column.form if column.form.meaning == "dates" else Form("dates")
            dates = dates_of(series, form)
            times = np.where(
                dates.isna(), np.nan, dates.to_numpy().astype("datetime64[us]").astype(np.float64)
            )
        return split_by_time(times, self.fractions, f"data.time_column={self.time_column}")

    # --- features ---------------------------------------------------------------------------------

    def prepare(
        self, table: Table, parts: Parts
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
        """What the columns are, and features of them."""
        frame = table.features
        if self.preparation is None:
            numbers = sum(column.kind == "numeric" for column in self.columns)
            train = frame.iloc[parts["train"]]
            self.preparation = Preparation(
                self.columns,
                scaling=self.scaling,
                pieces=affordable_pieces(len(frame), numbers)
                if self.pieces == "auto"
                else self.pieces,
                max_one_hot=self.max_one_hot,
                min_category_rows=self.min_category_rows,
            ).fit(train)
            self.skewed = self.preparation.skewed
            self.described = describe_table(self.columns, train, self.preparation)
        preparation = self.preparation
        inputs = {stage: preparation.transform(frame.iloc[rows]) for stage, rows in parts.items()}
        return inputs, {
            "feature_names": preparation.feature_names,
            "category_counts": preparation.category_counts,
            "numbers": len(preparation.medians),
        }

    def roles(self) -> dict[str, str]:
        """What columns are that are no features."""
        roles = dict.fromkeys(self.targets, "data.target")
        for key in ("split_column", "group_column", "time_column"):
            if (name := getattr(self, key)) is not None:
                roles[name] = f"data.{key}"
        return roles

    def log_targets(self, target: NDArray[Any], parts: Parts) -> tuple[bool, ...]:
        """Whether each target is learnt as its logarithm."""
        if self.target_log == "auto":
            return tuple(is_skewed(target[parts["train"]]).tolist()) if (target > 0).all() else ()
        if self.target_log and not (target > 0).all():
            raise Refused(
                "data.target_log=true: some targets are not above zero; write data.target_log=false"
            )
        return (self.target_log,) * target.shape[1]

    def plain_features(self) -> list[int]:
        """All but the pieces of numbers."""
        assert self.preparation is not None
        return self.preparation.whole_features

    def owners(self) -> tuple[str, ...]:
        """The column that each of the network's inputs is of."""
        assert self.preparation is not None
        return self.preparation.owners

    def card(self) -> dict[str, Any] | None:
        """What was found out about the table and decided;
        None where a checkpoint brought the decisions.
        """
        if not self.described:
            return None
        pairs = {
            stage: (x.cpu().numpy(), y.cpu().numpy()) for stage, (x, y) in self.tensors.items()
        }
        return {
            "files": self.files,
            "notes": self.notes,
            "said": self.said,
            "rows": self.spec.num_rows,
            "split": self.how_split(),
            "target": describe_target(self.targets, self.target_values, self.spec, self.task),
            "inputs": self.spec.input_shape[0],
            "columns": self.described,
            "skewed": self.skewed,
            "scaling": self.scaling,
            "checks": check_table(
                pairs, self.spec, self.plain_features(), self.owners(), self.drop_duplicates
            ),
        }

    def how_split(self) -> str:
        """Where the parts come from."""
        if self.folds:
            held = f"fold {self.fold or 0} of {self.folds}, drawn with data.seed={self.seed}"
            return held if self.group_column is None else f"{held}; groups by {self.group_column}"
        for key, words in (
            ("split_column", "by"),
            ("group_column", "groups by"),
            ("time_column", "in the order of"),
        ):
            if (name := getattr(self, key)) is not None:
                return f"{words} {name}"
        given = [
            f"{stage} from {path}" for stage, path in self.parts_paths.items() if path is not None
        ]
        drawn = [f"drawn with data.seed={self.seed}"] if len(given) < len(self.parts_paths) else []
        return ", ".join([*given, *drawn])

    def state_dict(self) -> dict[str, Any]:
        """What was fitted on the training rows, for the checkpoint."""
        assert self.preparation is not None
        forms = {name: asdict(form) for name, form in self.target_forms.items()}
        plain = self.preparation.as_plain()
        return {**super().state_dict(), "preparation": plain, "target_forms": forms}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes what was fitted from a checkpoint."""
        self.preparation = Preparation.from_plain(state_dict["preparation"])


def check_columns(expected: list[str], found: list[str], where: str) -> None:
    """Refuses files of validation or test rows that lack a column."""
    if lacking := [name for name in expected if name not in found]:
        raise Refused(
            f"{where}: lacks the column {lacking[0]} of data.path; all files must have the same"
            " columns"
        )


def frequent_marks(series: Any, not_missing: Collection[str]) -> dict[str, int]:
    """Words that are marks of a missing value elsewhere,
    and a class of a target of words: they are frequent, or the user says so.
    """
    written = series.dropna().astype(object).map(word_of)
    counts = written[written != ""].value_counts()
    return {
        str(word): int(count)
        for word, count in counts.items()
        if word in MARKS and (word in not_missing or count >= FREQUENT * counts.sum())
    }


def looks_like_data(frame: Any, first: Sequence[str]) -> bool:
    """Whether half of the words of the first row are values of their columns too."""
    again = [
        word.strip() in set(clean(frame[name].head(1000)))
        for name, word in zip(frame.columns, first, strict=False)
    ]
    return 2 * sum(again) >= len(again)
