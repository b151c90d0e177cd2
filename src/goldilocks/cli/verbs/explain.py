"""All about an option, a key or a group: `optimizer=nadam`, `optimizer.lr`, `optimizer`.

What it is, what the guide advises and what was measured, its parameters, what it was seen to do,
and related options.
"""

import re
import shutil
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from goldilocks.cli.evidence_pages import Advice, Proof, advice_of, proofs_of
from goldilocks.cli.help import ENDLESS, row
from goldilocks.cli.main import refusals
from goldilocks.cli.mistakes import dotted_keys, explain_key, explain_option
from goldilocks.cli.script import ScriptParser
from goldilocks.config.options import card, groups, options, text_of
from goldilocks.config.places import CONF
from goldilocks.errors import Refused

if TYPE_CHECKING:
    from goldilocks.cli.parameters import Parameter

CLAIMS = 6  # of a row of the guide, shown at most
RELATED = 12  # options, shown at most
WIDE = 14  # columns of a value, which a longer one exceeds


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("setting", help="GROUP=OPTION, GROUP.KEY or GROUP")
    given = parser.parse_args()
    with refusals() as outcome:
        width = shutil.get_terminal_size((ENDLESS, 24)).columns
        for line in page_of(given.setting):
            print(line if len(line) <= width else wrapped(line, width))
    return outcome.code


def page_of(setting: str) -> Iterator[str]:
    """The lines about an option, a key or a group.

    Raises:
        Refused: if there is no such one.
    """
    group, is_choice, option = setting.partition("=")
    if is_choice and "." in group:
        raise Refused(f"{setting}: write GROUP=OPTION or GROUP.KEY, such as {group}")
    if is_choice:
        if option not in options(group):
            raise Refused(explain_option(f"{group}/{option}"))
        return page_of_option(group, option)
    return page_of_group(setting) if setting in groups() else page_of_key(setting)


def page_of_group(group: str) -> Iterator[str]:
    """The options of a group, a line each."""
    known = options(group)
    column = 4 + max(map(len, known))
    for option in known:
        yield from row(f"  {option}", card(group, option), column, ENDLESS)
    yield ""
    yield f"python -m goldilocks explain {group}={known[0]} tells all about one."


def page_of_option(group: str, option: str) -> Iterator[str]:
    """All about an option."""
    yield f"{group}={option}"
    yield from introduction(group, option)
    composed = node_of(group, option)
    if group == "experiment" or composed is None:
        yield from part("sets", contents(group, option))
    else:
        yield from part("parameters", parameters(group, option, composed))
    own = f"{group}={option}"
    proofs = [proof for proof in proofs_of(own) if "." not in proof.setting]
    advice = guide((one for one in proofs if one.setting.startswith(own)), option)
    yield from part("the guide, and what was measured", told(advice))
    yield from part("seen to do (docs/options.md)", map(shown_proof, proofs))
    yield from part("related", related(group, option, advice))


def page_of_key(key: str) -> Iterator[str]:
    """All about a key, in every option that has it.

    Raises:
        Refused: if there is no such key.
    """
    found = having(key)
    if not found and key not in (others := general_keys()):
        raise Refused(explain_key(key))
    yield key
    if not found:
        yield from (f"  {said}" for said in others[key] if said)
    meanings = Counter(one.meaning for _, one in found if one.meaning and one.key == key)
    yield from (f"  {meaning}" for meaning, _ in meanings.most_common(1))
    yield from part("in the options", columns(key, found))
    proofs = proofs_of(key)
    yield from part("the guide, and what was measured", told(guide(proofs, key)))
    yield from part("seen to do (docs/options.md)", map(shown_proof, proofs))


def having(key: str) -> list[tuple[str, "Parameter"]]:
    """The options of a key's group that have it, and what it is in them."""
    from goldilocks.cli.parameters import parameters_of_option

    group = key.partition(".")[0]
    nodes = {option: node_of(group, option) for option in options(group)}
    return [
        (option, parameter)
        for option, node in nodes.items()
        if isinstance(node, dict)
        for parameter in parameters_of_option(group, option, node)
        if parameter.key == key or parameter.key.startswith(f"{key}.")
    ]


def general_keys() -> dict[str, tuple[str, str]]:
    """Comment and value of the keys that conf/train.yaml sets itself."""
    from omegaconf import OmegaConf

    from goldilocks.cli.parameters import comments_in
    from goldilocks.config.compose import compose

    text = (CONF / "train.yaml").read_text(encoding="utf-8")
    config = compose([])[0]
    said = comments_in(text)
    known = [key for key in dotted_keys(config) if key in said]
    return {key: (said[key], f"here: {OmegaConf.select(config, key)}") for key in known}


def columns(key: str, found: Iterable[tuple[str, "Parameter"]]) -> Iterator[str]:
    """A line for each option: the key's value there, what is allowed, what is searched."""
    rows = [
        (
            option + one.key[len(key) :],
            one.value,
            one.allowed,
            one.search and f"searched: {one.search}",
        )
        for option, one in found
    ]
    widths = [2 + max((len(row[i]) for row in rows), default=0) for i in range(3)]
    for *cells, searched in rows:
        yield (
            "".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
            + searched
        ).rstrip()


def introduction(group: str, option: str) -> Iterator[str]:
    """The comment at the head of an option's file."""
    for line in text_of(group, option).splitlines():
        if not line.startswith("#"):
            return
        if not line.startswith("# @package") and (words := line.removeprefix("#").strip()):
            yield f"  {words}"


def contents(group: str, option: str) -> list[str]:
    """What an option's file says, without its comments at the head."""
    lines = text_of(group, option).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def node_of(group: str, option: str) -> Any:
    """What a group is composed to with an option, references not followed; None of one that sets
    keys of other groups.
    """
    from omegaconf import OmegaConf

    from goldilocks.config.compose import composed_from, prepare_hydra
    from goldilocks.config.options import roots

    if "# @package _global_" in text_of(group, option):
        return None
    prepare_hydra()
    config = composed_from(roots(), [f"{group}={option}"])
    return OmegaConf.to_container(config[group], resolve=False) if group in config else None


def parameters(group: str, option: str, node: Any) -> Iterator[str]:
    """A line for each parameter: its value, meaning, what is allowed, what is searched."""
    from goldilocks.cli.parameters import parameters_of_option

    known = parameters_of_option(group, option, node)
    names = max((len(parameter.key) for parameter in known), default=0) + 2
    values = min(max((len(parameter.value) for parameter in known), default=0), WIDE)
    for parameter in known:
        said = [parameter.meaning, f"[{parameter.allowed}]" if parameter.allowed else ""]
        told = "; ".join(filter(None, [*said, searched(parameter)]))
        yield f"{parameter.key:<{names}}{parameter.value:<{values}}  {told}".rstrip()


def searched(parameter: "Parameter") -> str:
    """The range that an option states for a key, if it does."""
    return f"searched: {parameter.search}" if parameter.search else ""


def guide(proofs: Iterable[Proof], option: str) -> list[Advice]:
    """The rows of the guide that an option belongs to."""
    rows = dict.fromkeys(row for proof in proofs for row in proof.guide)
    return [advice_of(row, option) for row in rows]


def told(advice: Iterable[Advice]) -> Iterator[str]:
    """The guide's rows: what they advise, the verdict, and the claims about an option."""
    for one in advice:
        yield f"{one.row}, {one.title}: {one.advice}"
        yield f"  tried: {one.verdict}"
        yield from (f"    {claim}" for claim in one.measured[:CLAIMS])
        if more := len(one.measured) - CLAIMS:
            yield from [f"    and {more} more: docs/guide.md"] * (more > 0)


def shown_proof(proof: Proof) -> str:
    """A row of docs/options.md in a line."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", proof.measured)
    return f"{proof.setting}: {proof.claim} ({proof.observable}: {plain})"


def related(group: str, option: str, advice: Iterable[Advice]) -> list[str]:
    """The group's other options that a row of the guide names beside it, else all of them; then
    settings of those rows.
    """
    named = list(dict.fromkeys(setting for one in advice for setting in one.related))
    own = f"{group}={option}"
    of_group = [setting for setting in named if setting.partition("=")[0] == group]
    others = of_group or [f"{group}={other}" for other in options(group)]
    beside = [setting for setting in named if setting not in others and " " not in setting]
    chosen = [setting for setting in [*others, *beside] if setting != own]
    return [" ".join(chosen[:RELATED]) + (" ..." if len(chosen) > RELATED else "")]


def part(title: str, lines: Iterable[str]) -> Iterator[str]:
    """A part of a page below its title; nothing where it is empty."""
    told = [line for line in lines if line]
    if told:
        yield from ["", title, *(f"  {line}" for line in told)]


def wrapped(line: str, width: int) -> str:
    """A line in a terminal's width, its indentation kept."""
    indent = line[: len(line) - len(line.lstrip())] + "    "
    return textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False)
