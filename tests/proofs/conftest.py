"""`python -m pytest tests/proofs --write-page` measures every row and writes docs/options.md."""

import pytest

from conftest import ROOT
from proofs import page, table
from proofs.guide import ADVICE, LATER

PAGE = ROOT / "docs" / "options.md"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-page", action="store_true", help="write docs/options.md")


def pytest_configure(config: pytest.Config) -> None:
    on_a_worker = hasattr(config, "workerinput")
    if writes_page(config) and not on_a_worker:
        config.pluginmanager.register(PageWriter())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only the rows are run for the page: the other tests compare with the page of before."""
    if writes_page(config):
        items[:] = [item for item in items if item.name.startswith("test_every_row_holds[")]


def writes_page(config: pytest.Config) -> bool:
    """Whether it was asked for; pytest knows the option only where this folder is named."""
    return bool(config.getoption("--write-page", default=False))


class PageWriter:
    """Collects what the rows measured, from all workers, and writes the page if every row holds."""

    def __init__(self) -> None:
        self.measured: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            found = dict(report.user_properties)
            self.measured[str(found["option"])] = str(found["measured"])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        rows = table.rows()
        missing = [row.option for row in rows if row.option not in self.measured]
        if missing:
            named = " ".join(missing[:5])
            terminalreporter.write_line(
                f"docs/options.md is not written: {len(missing)} of {len(rows)} rows were not"
                f" measured or do not hold: {named}"
            )
            return
        young = table.not_yet_shown(table.needed(), rows)
        text = page.whole_page(self.measured, rows, young, ADVICE, LATER)
        PAGE.write_text(text, encoding="utf-8")
        terminalreporter.write_line(f"docs/options.md is written: {len(rows)} rows")
