"""``covseg models`` and ``covseg models show``."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from napari_covseg.cli.output import JsonOption, Output

app = typer.Typer(invoke_without_command=True)


@app.callback()
def models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the models, the default one first; `models show NAME` prints one's card."""
    output = Output(context, as_json)
    if context.invoked_subcommand is not None:
        return
    from napari_covseg.models.catalogue import available

    entries = available()
    output.record([{**dataclasses.asdict(entry.card), "path": str(entry.path)} for entry in entries])
    for entry in entries:
        output.line(f"{entry.card.id:<24}  {', '.join(entry.card.outputs):<24}  {entry.card.title}")


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name from `covseg models`, or a model file.")],
    as_json: JsonOption = False,
) -> None:
    """Print a model's card: what it learned from, how it scored, and its licence."""
    parent = context.find_root().obj
    output = Output(context, as_json or (isinstance(parent, Output) and parent.as_json))
    from napari_covseg.models.catalogue import find

    entry = find(name)
    card = dataclasses.asdict(entry.card)
    output.record({**card, "path": str(entry.path)})
    for key, value in {**card, "path": str(entry.path)}.items():
        if isinstance(value, dict):
            output.line(f"{key}")
            for name_, one in value.items():
                shown = ", ".join(map(str, one)) if isinstance(one, list | tuple) else one
                output.line(f"    {name_:<16}  {shown}")
        elif value:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            output.line(f"{key:<20}  {shown}")
