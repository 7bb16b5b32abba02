"""The commands that pages name are there and take the options beside them, and each picture has one."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from napari_covseg.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "README.md",
    ROOT / "weights" / "README.md",
    ROOT / "benchmarks" / "folds" / "README.md",
]
COVSEG: Any = typer.main.get_command(app)
SHELL_WORDS = {"do", ";", "&&", "|"}
ELSEWHERE = {"--help", "--pid"}
"""Options of other programs."""


def lines(page: Path) -> list[str]:
    """Return the lines of a page's shell blocks, and the code in its sentences."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    joined = "".join(blocks).replace("\\\n", " ").splitlines()
    return joined + re.findall(
        r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    )


def commands(page: Path, program: str) -> list[list[str]]:
    """Return the words of each command of a program that a page names."""
    found = []
    for line in lines(page):
        line = re.sub(r"(^|\s)#.*", "", line.removeprefix("$ ")).replace("…", "")
        for part in re.split(r";|&&|\|", line):
            words = shlex.split(part)
            while words and (words[0] == "do" or "=" in words[0]):
                words = words[1:]
            if len(words) > 1 and words[0] == program:
                found.append(words[1:])
    return found


def options_of(script: Path) -> set[str]:
    """Return the options that a script takes: the words that begin so in it, and `--help`."""
    tree = ast.parse(script.read_text("utf-8"))
    words = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {word for word in words if isinstance(word, str) and word.startswith("--")} | {"--help"}


def parse(words: list[str]) -> None:
    """Go to the command that the words name; raise a UsageError for a word or an option that it has not."""
    command, context = COVSEG, COVSEG.context_class(COVSEG, info_name="covseg")
    while hasattr(command, "commands"):
        if "networks" in command.commands and words and words[0] not in {*command.commands, *ELSEWHERE}:
            words = ["networks", *words]  # `covseg assess DATA`
        if not words or words[0].startswith("-"):
            break
        name, command, words = command.resolve_command(context, words)
        context = command.context_class(command, info_name=name, parent=context)
    command.make_parser(context).parse_args(list(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_are_there_and_take_its_options(page: Path) -> None:
    for words in commands(page, "covseg"):
        parse(words)
    for script, *words in commands(page, "python"):
        if script.endswith(".py"):
            assert (ROOT / script).is_file(), script
            given = {word.split("=")[0] for word in words if word.startswith("--")}
            assert given <= options_of(ROOT / script), (script, given)


def test_a_command_that_is_not_there_is_found_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Say `covseg assess --nothing`.\n\n```sh\nfor k in 1; do covseg trian DATA; done  # so\n```\n"
    )
    first, second = commands(page, "covseg")
    assert (first, second) == (["trian", "DATA"], ["assess", "--nothing"])
    for words in (first, second):
        with pytest.raises(Exception, match=r"No such (command|option)"):
            parse(words)


def test_each_option_that_a_page_names_is_one_of_a_command() -> None:
    known, groups = set(ELSEWHERE), [COVSEG]
    for group in groups:
        for command in group.commands.values():
            (groups if hasattr(command, "commands") else []).append(command)
            known |= {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    for script in [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs").glob("*.py")]:
        known |= options_of(script)
    for page in PAGES:
        named = {word for code in lines(page) for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)}
        assert named <= known, page


def test_each_picture_is_made_by_a_script_or_by_a_command_beside_it() -> None:
    scripts = "".join(
        path.read_text("utf-8") for path in [*ROOT.glob("docs/*.py"), *ROOT.glob("benchmarks/*.py")]
    )
    families = re.findall(r"`([\w-]+-\*\.svg)`", scripts)  # of pictures, one for each stored run
    for picture in (ROOT / "docs" / "images").iterdir():
        if any(picture.match(family) for family in families):
            continue
        if picture.is_file() and f"/{picture.name}" not in scripts and f'"{picture.stem}"' not in scripts:
            pages = [page for page in PAGES if f"images/{picture.name}" in page.read_text("utf-8")]
            assert any(f"--figure docs/images/{picture.name}" in page.read_text("utf-8") for page in pages), (
                picture
            )
