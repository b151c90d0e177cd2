"""What the pages say is so: commands, trees, links;
and what the command line needs first imports nothing heavy.
"""

import ast
import itertools
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT
from yours import OPTIONS, YOURS, targets_of

SRC = ROOT / "src"
PAGES = sorted(
    path
    for path in (
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob(".github/*.md"),
    )
    if path.exists()
)
# Of files that the page itself makes; tests/end_to_end/test_extending.py runs all its commands.
FOLLOWED = ROOT / "docs" / "extending.md"
MODULES = sorted(
    path
    for path in SRC.rglob("*.py")
    if path.parts[len(SRC.parts)] in ("goldilocks", "hydra_plugins")
)
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
HEAVY = {
    "torch",
    "pytorch_lightning",
    "torchmetrics",
    "sklearn",
    "numpy",
    "pydantic",
    "tensorboard",
    "rich",
    "pandas",
}
LIGHT = (
    "goldilocks",
    "goldilocks.cli.main",
    "goldilocks.errors",
    "goldilocks.config.metric_directions",
    "hydra_plugins.goldilocks",
)


# --- commands -------------------------------------------------------------------------------------


def commands(start: str) -> list[tuple[str, str]]:
    """(page, command) for each command of the pages that begins with `start`,
    in blocks and between backticks.
    """
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fenced = re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
        prose = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        lines = [line.strip() for block in fenced for line in block.splitlines()]
        for line in [*lines, *re.findall(r"`([^`\n]+)`", prose)]:
            line = line.removeprefix("$ ").split("  #")[0].strip()
            if re.match(rf"(?:[A-Z_]+=\S+ )*{start}(?: |$)", line):
                found.append((page.name, line))
    return found


def words_of(command: str) -> list[str]:
    """The overrides of a `python train.py` command, its flags left out."""
    words = shlex.split(command.split("train.py", 1)[1])
    return [
        word
        for word in words
        if word not in ("-m", "--help", "--cfg", "job", "...") and "=..." not in word
    ]


# What a page says is refused: the command, and below it the line that is printed.
REFUSED = re.findall(
    r"^(python train\.py .*)\n(error: .*)$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
)
TRAIN = sorted(
    {c for page, c in commands(r"python train\.py") if page != FOLLOWED.name}
    - {c for c, _ in REFUSED}
)


@pytest.mark.parametrize("command", TRAIN)
def test_every_train_command_names_what_exists(command, compose):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from goldilocks.training.checks import check

    overrides = OverridesParser.create().parse_overrides(words_of(command))
    combinations = list(itertools.product(*map(values_of, overrides)))
    assert len(combinations) == 1 or " -m " in command
    for words in combinations:
        check(compose(*words))


def values_of(override):
    """The words of an override, one for each of its values; one value of a range."""
    if not override.is_sweep_override():
        return [override.input_line]
    values = (
        list(override.sweep_string_iterator())
        if override.is_discrete_sweep()
        else [override.value().end]
    )
    return [f"{override.get_key_element()}={value}" for value in values]


@pytest.mark.parametrize(("given", "line"), REFUSED)
def test_what_the_readme_says_is_refused_is_refused_in_these_words(given, line, command):
    """The names that a line lists in brackets may be more here: options are added by a file."""
    ended = command(*words_of(given))
    text, names = without_brackets(line)
    printed, known = without_brackets(ended.err.strip())
    assert (ended.code, printed, ended.new) == (2, text, [])
    assert names <= known


def without_brackets(line):
    """A line without what its brackets hold, and the names there."""
    inside = "".join(re.findall(r"\((.*?)\)", line))
    return re.sub(r"\(.*?\)", "()", line), set(re.findall(r"\w+", inside))


def test_there_are_train_commands():
    assert len(TRAIN) >= 8
    assert len(REFUSED) >= 2


def test_no_number_is_left_to_be_filled_in():
    assert re.findall(r"@\w+@", readme()) == []


@pytest.mark.parametrize(("page", "command"), commands(r"python scripts/[\w/]+\.py"))
def test_every_script_exists_and_takes_its_overrides(page, command, compose):
    script, *words = command.split()[1:]
    assert (ROOT / script).is_file(), f"{page}: {command}"
    compose(*(word for word in words if "=" in word))


@pytest.mark.parametrize(("page", "command"), commands(r"make(?= \w)"))
def test_every_make_target_exists(page, command):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    target = next(word for word in command.split("make", 1)[1].split() if "=" not in word)
    assert target in targets, f"{page}: {command}"


# --- what the README lists ------------------------------------------------------------------------


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def tree() -> list[str]:
    """The paths of the README's tree: two spaces deeper is inside the folder above."""
    block = re.search(r"## What lies where\n\n```\n(.*?)```", readme(), flags=re.DOTALL)
    assert block is not None, "README.md has no tree under `What lies where`"
    paths: list[str] = []
    folder = ""
    for line in block[1].splitlines():
        depth = len(line) - len(line.lstrip())
        names = re.split(r"\s{2,}", line.strip())[0].split(" ")
        names = names if all(re.fullmatch(r"[\w./-]+", name) for name in names) else names[:1]
        if depth == 0:
            folder = names[0] if names[0].endswith("/") else ""
        paths += [(folder if depth else "") + name for name in names]
    return paths


def test_the_tree_of_the_readme_is_on_disk():
    missing = [path for path in tree() if not (ROOT / path).exists()]
    assert not missing


def test_nothing_that_git_holds_is_missing_from_the_tree():
    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    listed = {path.rstrip("/") for path in tree()}
    top = {name.partition("/")[0] for name in done.stdout.splitlines()}
    hidden = {name for name in top if name.startswith(".")} - {".github", ".ci"}
    assert top - hidden <= {path.partition("/")[0] for path in listed}
    groups = {
        f"conf/{path.name}"
        for path in (ROOT / "conf").iterdir()
        if path.is_dir() and any(path.rglob("*.yaml"))
    }
    assert groups <= listed


def test_the_table_of_the_readme_has_every_group_and_every_option_of_ours():
    """One that names no class of goldilocks may be anybody's:
    it is one YAML file, without a line in the README.
    """
    from goldilocks.config.options import groups

    found = dict(re.findall(r"^\| `(\w+)` \| (`.*?`) \| ", readme(), flags=re.MULTILINE))
    rows = {group: cells for group, cells in found.items() if group in groups()}
    assert list(rows) == groups()
    listed = {
        (group, option) for group, cells in rows.items() for option in re.findall(r"`(\w+)`", cells)
    }
    ours = {
        pair
        for pair in OPTIONS
        if pair not in YOURS
        and pair[0] in groups()
        and any(target.startswith("goldilocks.") for target in targets_of(*pair))
    }
    assert ours <= listed <= set(OPTIONS)


# --- links and names ------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if not (page.parent / link).exists()]
    assert not broken


# --- the rules of the code ------------------------------------------------------------------------


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path): path for path in MODULES}


def imported_at_start(name: str) -> set[str]:
    """What is imported with a module: modules of ours, and the top-level packages of others."""
    found: set[str] = set()
    for node in outside_functions(ast.parse(NAMES[name].read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & NAMES.keys()) or {node.module or ""}
    return {module if module in NAMES else module.partition(".")[0] for module in found}


def outside_functions(body):
    """The statements that run when a module is imported."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from outside_functions(ast.iter_child_nodes(node))


@pytest.mark.parametrize("name", LIGHT)
def test_what_the_command_line_needs_first_imports_nothing_heavy(name):
    seen: set[str] = set()
    waiting = {name, name.partition(".")[0]} & NAMES.keys()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        found = imported_at_start(module)
        assert not found & HEAVY, f"{module} imports {sorted(found & HEAVY)} when it is imported"
        waiting |= (found & NAMES.keys()) - seen
