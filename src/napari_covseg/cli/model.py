"""``covseg models``: those of the package, and those that learned in a workspace."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_covseg.cli.case import open_workspace
from napari_covseg.cli.output import JsonOption, Output, WorkspaceOption

if TYPE_CHECKING:
    from napari_covseg.cases.versions import Versions

app = typer.Typer(invoke_without_command=True)
IdArgument = Annotated[str, typer.Argument(help="Id from `covseg models --workspace ...`.")]


@app.callback()
def models(context: typer.Context, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List the models, the default one first; with --workspace also those that learned there."""
    output = Output(context, as_json)
    if context.invoked_subcommand is not None:
        return
    from napari_covseg.models.catalogue import available

    entries = available()
    records: list[dict[str, Any]] = [
        {**dataclasses.asdict(entry.card), "path": str(entry.path)} for entry in entries
    ]
    lines = [
        f"{entry.card.id:<24}  {', '.join(entry.card.outputs):<24}  {entry.card.title}" for entry in entries
    ]
    if workspace is not None:
        from napari_covseg.cases.versions import Versions

        versions = Versions(open_workspace(workspace))
        for version in versions.list():
            state, current = version.state.name.lower(), versions.current(version.base) == version.id
            seen = sum(len(one.learned) + len(one.held_out) for one in version.learned_from.values())
            records.append({**_version_record(version), "state": state, "current": current})
            told = f"{state}{', current' if current else ''}"
            lines.append(f"{version.id:<24}  {told:<24}  learned from {version.parent} and {seen} slices")
    output.record(records)
    for line in lines:
        output.line(line)


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name from `covseg models`, or a model file.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a model's card: what it learned from, how it scored, and its licence."""
    output = _output(context, as_json)
    from napari_covseg.jobs.find_model import find_model

    found = find_model(name, None if workspace is None else open_workspace(workspace))
    card = {**dataclasses.asdict(found.card), "path": str(found.path)}
    output.record(card)
    for key, value in card.items():
        if isinstance(value, dict):
            output.line(f"{key}")
            for name_, one in value.items():
                shown = ", ".join(map(str, one)) if isinstance(one, list | tuple) else one
                output.line(f"    {name_:<16}  {shown}")
        elif value:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            output.line(f"{key:<20}  {shown}")


@app.command()
def keep(
    context: typer.Context, model: IdArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Keep a version and use it from now on."""
    output, versions = _output(context, as_json), _versions(workspace)
    versions.keep(model)
    _tell(output, versions, versions.get(model).base)


@app.command()
def discard(
    context: typer.Context, model: IdArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Discard a version; was it in use, its nearest kept ancestor is again."""
    output, versions = _output(context, as_json), _versions(workspace)
    versions.discard(model)
    _tell(output, versions, versions.get(model).base)


@app.command()
def current(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="A version that was kept, or the model that its line began with.")
    ],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back, or on, to a version, or to the model that the versions began with."""
    output, versions = _output(context, as_json), _versions(workspace)
    bases = {version.base for version in versions.list()}
    base = model if model in bases else versions.get(model).base
    versions.set_current(base, model)
    _tell(output, versions, base)


def _output(context: typer.Context, as_json: bool) -> Output:
    parent = context.find_root().obj
    return Output(context, as_json or (isinstance(parent, Output) and parent.as_json))


def _versions(workspace: str | None) -> Versions:
    from napari_covseg.cases.versions import Versions

    return Versions(open_workspace(workspace))


def _tell(output: Output, versions: Versions, base: str) -> None:
    now = versions.current(base)
    output.record({"base": base, "current": now})
    output.line(f"In use for {base}: {now}")


def _version_record(version: Any) -> dict[str, Any]:
    record = dataclasses.asdict(version)
    return {**record, "created": version.created.isoformat()}
