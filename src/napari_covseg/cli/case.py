"""``covseg cases`` with ``check``, ``history`` and ``rescue``, and ``covseg export``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_covseg.cli.output import JsonOption, Output, WorkspaceOption
from napari_covseg.errors import JobError
from napari_covseg.jobs.events import Written, as_record
from napari_covseg.labels import GROUPS, Group, Label

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_covseg.cases.case import Case
    from napari_covseg.cases.revision import Revision
    from napari_covseg.cases.workspace import Workspace


app = typer.Typer(invoke_without_command=True)


@app.callback()
def cases(context: typer.Context, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List the cases of the workspace; `cases check` looks for damage, `cases history` lists revisions.

    `cases rescue` brings strokes back that were saved elsewhere.
    """
    output = Output(context, as_json)
    if context.invoked_subcommand is not None:
        context.obj = workspace, as_json
        return
    from napari_covseg.cases.workspace import default_workspace

    if workspace is None and not default_workspace().exists():
        output.record([])
        output.line("There are no cases yet; `covseg import SCAN` makes one.")
        return
    place = open_workspace(workspace)
    listed = place.cases()
    output.record(
        [
            {
                "id": case.id,
                "name": case.name,
                "shape": case.shape,
                "modified": case.modified.isoformat(),
                "patient_id": case.patient_id,
            }
            for case in listed
        ]
    )
    for case in listed:
        size = "{} x {} x {}".format(*case.shape)
        output.line(f"{case.id:<32}  {size:<16}  {case.modified.astimezone():%Y-%m-%d %H:%M}  {case.name}")
    if not listed:
        output.line(f"{place.path} has no cases yet; `covseg import SCAN` makes one.")


@app.command()
def check(
    context: typer.Context,
    place: Annotated[
        str | None, typer.Argument(metavar="[WORKSPACE]", help="Folder of the workspace.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read all of a workspace and say what is damaged and what to do; exit code 1 if anything is."""
    workspace, above_json = context.parent.obj if context.parent else (None, False)
    output = Output(context, as_json or above_json)
    from napari_covseg.cases.check import check_workspace
    from napari_covseg.cases.workspace import default_workspace

    looked_at = place or workspace or default_workspace()
    findings = check_workspace(looked_at)
    output.record([dataclasses.asdict(finding) for finding in findings])
    for finding in findings:
        output.line(f"{finding.level:<8} {finding}")
    damaged = sum(finding.level == "damaged" for finding in findings)
    output.line(f"{looked_at}: {damaged or 'nothing'} damaged")
    if damaged:
        raise typer.Exit(1)


@app.command()
def history(
    context: typer.Context,
    case: Annotated[str, typer.Argument(help="Id of the case, from `covseg cases`.")],
    csv: Annotated[str | None, typer.Option(help="Write the audit trail into this file.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List every revision of a case: when, who, what, where."""
    above, above_json = context.parent.obj if context.parent else (None, False)
    output = Output(context, as_json or above_json)
    from napari_covseg.cases.history import History, write_csv

    opened = open_workspace(workspace or above).case(case)
    kept = History(opened, opened.activity.revision)
    revisions = list(kept.summaries().values())
    if csv is not None:
        write_csv(revisions, csv)
        output.line(f"Wrote {csv}")
    output.record(_records(revisions))
    for one in () if csv is not None else revisions:
        ends = [str(z + 1) for z in (one.slices[:1] + one.slices[1:][-1:])]  # as a person counts
        when = f"{one.when.astimezone():%Y-%m-%d %H:%M:%S}"
        groups, note = " ".join(one.groups), one.note or one.prediction_id
        output.line(
            f"{one.number:>6}  {when}  {one.who:<16}  {one.tool:<10}  {groups:<13}  {'-'.join(ends):<9}  "
            f"{one.voxels:>8}  {note}".rstrip()
        )
    if missing := kept.missing():
        output.line(f"Missing or damaged: {', '.join(map(str, missing))}; see `covseg cases check`.")


@app.command()
def rescue(
    context: typer.Context,
    case: Annotated[str, typer.Argument(help="Id of the case, from `covseg cases`.")],
    file: Annotated[str, typer.Argument(help="File of strokes (*.covseg-strokes).")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring strokes back that were saved elsewhere, when the workspace could not be written.

    The file stays; a second time changes nothing.
    """
    above, above_json = context.parent.obj if context.parent else (None, False)
    output = Output(context, as_json or above_json)
    from napari_covseg.cases.open_case import OpenCase
    from napari_covseg.cases.rescue import bring_back

    with OpenCase(open_workspace(workspace or above), case) as opened:
        before = opened.revision
        bring_back(opened, file)
        opened.flush()
        new = [one for one in opened.history() if one.number > before]
    output.record(_records(new))
    if new:
        output.line(f"Brought {len(new)} change{'s' if len(new) != 1 else ''} back into {case}")
    else:
        output.line(f"{case} has all of {file} already")


def export(
    context: typer.Context,
    case: Annotated[str, typer.Argument(help="Id of the case, from `covseg cases`.")],
    lesions: Annotated[str | None, typer.Option(help="Write the lesions here.")] = None,
    lungs: Annotated[str | None, typer.Option(help="Write the lungs here.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a case's labels in the geometry of the scan that it was imported from."""
    output = Output(context, as_json)
    if not (lesions or lungs):
        raise JobError("There is nothing to write; name a file with --lesions, --lungs or both.")
    check_outputs(lesions, lungs)
    opened = open_workspace(workspace).case(case)
    write_case_labels(output, opened, lesions, lungs)


def _records(revisions: Iterable[Revision]) -> list[dict[str, Any]]:
    return [{**dataclasses.asdict(one), "when": one.when.isoformat()} for one in revisions]


def open_workspace(path: str | None) -> Workspace:
    """Open a workspace that exists; None is the default one."""
    from napari_covseg.cases.workspace import Workspace

    return Workspace.open(path, create=False)


def check_outputs(*paths: str | None) -> None:
    """Refuse files that cannot be written, before any work."""
    from napari_covseg.jobs.predict_file import check_output

    for path in filter(None, paths):
        check_output(path)


def write_case_labels(output: Output, case: Case, lesions: str | None, lungs: str | None) -> None:
    """Write a case's live labels to the files that are named."""
    import numpy as np

    paths: dict[Group, str | None] = {"lesions": lesions, "lungs": lungs}
    for group, path in paths.items():
        if path is not None:
            write_map(output, case, path, np.asarray(case.labels(group)[...], np.uint8), GROUPS[group])


def write_map(
    output: Output, case: Case, path: str, values: npt.NDArray[np.uint8], names: Sequence[Label] = ()
) -> None:
    """Write values on the grid of a case, uint8 (z, y, x), in the geometry of its scan, with their names."""
    import numpy as np

    from napari_covseg.scans import Scan, write_labels

    # Only the geometry is needed: the voxels stay on disk.
    scan = Scan.from_header(case.header, np.broadcast_to(np.int16(0), case.shape))
    write_labels(values, scan, path, names)
    output.record(as_record(Written(path)))
    output.line(f"Wrote {path}")
