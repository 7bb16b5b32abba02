"""``covseg models``: those of the package, those that learned in a workspace, and the papers' networks."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_covseg.cli.case import open_workspace
from napari_covseg.cli.output import JsonOption, Output, WorkspaceOption
from napari_covseg.errors import ModelError

if TYPE_CHECKING:
    from torch.nn import Module

    from napari_covseg.cases.workspace_models import WorkspaceModels

app = typer.Typer(invoke_without_command=True)


class ExportFormat(StrEnum):
    """Formats of `models.export`."""

    ONNX = "onnx"
    TORCH = "torch"


IdArgument = Annotated[str, typer.Argument(help="Id from `covseg models --workspace ...`.")]


@app.callback()
def models(
    context: typer.Context,
    every_network: Annotated[
        bool, typer.Option("--all", help="List the networks of the papers, trained or not.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the models, the default one first; with --workspace also those that learned there."""
    output = Output(context, as_json)
    if context.invoked_subcommand is not None:
        return
    if every_network:
        _list_networks(output)
        return
    from napari_covseg.models.catalogue import available
    from napari_covseg.models.installed import published

    entries = available(None)
    records: list[dict[str, Any]] = [
        {**dataclasses.asdict(entry.card), "path": str(entry.path), "origin": entry.origin}
        for entry in entries
    ]
    lines = [
        f"{entry.card.id:<24}  {entry.origin:<9}  {', '.join(entry.card.outputs):<16}  {entry.card.title}"
        for entry in entries
    ]
    if workspace is not None:
        from napari_covseg.cases.workspace_models import WorkspaceModels

        versions = WorkspaceModels(open_workspace(workspace))
        for version in versions.list():
            state, current = version.state.name.lower(), versions.current(version.base) == version.id
            seen = sum(len(one.learned) + len(one.held_out) for one in version.learned_from.values())
            records.append({**_version_record(version), "state": state, "current": current})
            told = f"{state}{', current' if current else ''}"
            lines.append(f"{version.id:<24}  {told:<24}  learned from {version.parent} and {seen} slices")
    output.record(records)
    for line in lines:
        output.line(line)
    here = {entry.card.id for entry in entries}
    if more := [one.id for one in published() if one.id not in here]:
        output.line(f"To be had with `covseg models install NAME` or --all: {', '.join(more)}")


def _list_networks(output: Output) -> None:
    from napari_covseg.networks.catalogue import CATALOGUE, CLASSIFIERS

    entries = (*CATALOGUE, *CLASSIFIERS)
    keys = ("name", "paper", "task", "classes", "parameters", "gmac", "size", "settings")
    output.record([{key: getattr(entry, key) for key in keys} for entry in entries])
    wide = max(len(entry.name) for entry in entries)
    output.line(
        f"{'name':<{wide}}  {'paper':<16}  {'task':<14}  {'parameters':>10}  {'GMAC':>6}  at    network"
    )
    for entry in entries:
        size = f"{entry.parameters / 1e6:.3f} M"
        output.line(
            f"{entry.name:<{wide}}  {entry.paper:<16}  {entry.task:<14}  {size:>10}  {entry.gmac:>6.2f}  "
            f"{entry.size}²  {entry.title}"
        )


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

    found = find_model(name, None if workspace is None else open_workspace(workspace), None)
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
def install(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="Id of the model; `covseg models` lists those that there are.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="The model file, or the folder of NAME.safetensors; either may be a http address. By "
            "default the folder weights of a checkout.",
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All that belong to this version.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add a model that is not in the package to those that are always at hand; its checksum is looked at."""
    output = _output(context, as_json)
    from napari_covseg.models.installed import install as install_model
    from napari_covseg.models.installed import published

    if every == (name is not None):
        raise ModelError("Name a model, or say --all.")
    for one in [model.id for model in published()] if name is None else [name]:
        card, path = install_model(one, source)
        output.record({"installed": card.id, "path": str(path), "licence": card.licence})
        output.line(f"Installed {card.id} in {path}")
        output.line(f"{card.use} Licence of the weights: {card.licence or 'not stated'}")


@app.command()
def remove(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Id of the model, which `covseg models` lists as installed.")],
    as_json: JsonOption = False,
) -> None:
    """Delete an installed model; what it has labelled stays."""
    output = _output(context, as_json)
    from napari_covseg.models.installed import remove as remove_model

    path = remove_model(name)
    output.record({"removed": name, "path": str(path)})
    output.line(f"Removed {path}")


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


@app.command()
def export(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Name from `covseg models` or `covseg models --all`, or a model file.")
    ],
    out: Annotated[Path, typer.Option(help="File to write, for example model.onnx or model.pt2.")],
    form: Annotated[
        ExportFormat, typer.Option("--format", help="onnx needs the extra `export`; torch needs nothing.")
    ] = ExportFormat.ONNX,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a network for other programs, and check that it computes what it does here."""
    output = _output(context, as_json)
    from napari_covseg.models.export import check_onnx, export_network

    if form is ExportFormat.ONNX:
        check_onnx()
    network, card = _network(name, workspace)
    done = export_network(network, out, form.value, card)
    output.record(
        {
            "path": str(done.path),
            "format": done.format,
            "outputs": done.outputs,
            "trained": bool(card),
            "max_difference": done.max_difference,
        }
    )
    untrained = "" if card else ", with random weights: it is a network that nobody trained"
    output.line(f"Wrote {done.path}{untrained}")
    output.line(f"Largest difference of a logit from PyTorch: {done.max_difference:.2g}")


def _network(name: str, workspace: str | None) -> tuple[Module, str]:
    """Return a model's network and card, else a network of the catalogue, untrained and without a card."""
    from napari_covseg.jobs.find_model import find_model
    from napari_covseg.models.file import load_network
    from napari_covseg.networks.build import build_network
    from napari_covseg.networks.catalogue import CATALOGUE, CLASSIFIERS

    try:
        found = find_model(name, None if workspace is None else open_workspace(workspace), None)
    except ModelError:
        for entry in (*CATALOGUE, *CLASSIFIERS):
            if entry.name == name:
                outputs = entry.classes or ("lungs", "lesion")
                return build_network(entry.network, outputs, entry.settings), ""
        raise
    network, card = load_network(found.source(), name)
    return network, card.to_json()


def _output(context: typer.Context, as_json: bool) -> Output:
    parent = context.find_root().obj
    return Output(context, as_json or (isinstance(parent, Output) and parent.as_json))


def _versions(workspace: str | None) -> WorkspaceModels:
    from napari_covseg.cases.workspace_models import WorkspaceModels

    return WorkspaceModels(open_workspace(workspace))


def _tell(output: Output, versions: WorkspaceModels, base: str) -> None:
    now = versions.current(base)
    output.record({"base": base, "current": now})
    output.line(f"In use for {base}: {now}")


def _version_record(version: Any) -> dict[str, Any]:
    record = dataclasses.asdict(version)
    return {**record, "created": version.created.isoformat()}
