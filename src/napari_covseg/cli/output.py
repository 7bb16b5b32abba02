"""What a command says: for a person, on a terminal or into a log, or as JSON for a machine.

Results go to stdout, progress and notes to stderr. A user's error is one line and exit
code 2, Ctrl-C is exit code 130.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Generator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from napari_covseg.errors import CovsegError, ScanError
from napari_covseg.jobs.events import Cancelled, Event, Failed, Imported, Notice, Progress, Written, as_record
from napari_covseg.jobs.steps import WORK_THREAD

if TYPE_CHECKING:
    from napari_covseg.scans import Values

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
WorkspaceOption = Annotated[
    str | None,
    typer.Option(help="Folder of the workspace; by default $COVSEG_WORKSPACE, else the user's own."),
]
SeriesOption = Annotated[
    str | None, typer.Option(help="UID of the series to take from a DICOM folder; `covseg info` lists them.")
]
ValuesOption = Annotated[
    str | None,
    typer.Option(
        "--values",
        metavar="HU|HU+1024|grey",
        help="Say what the values of the file are where `covseg info` is wrong: HU, HU plus 1024, or grey.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(help="Name from `covseg models`, or a model file; by default the one that is in use."),
]
SeenAsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--seen-as",
        metavar="FIELD=VALUE",
        help="Say what the scan looks like where `covseg info` is wrong: kind, contrast, inverted, turned, "
        'cropped, as in turned=90, contrast=equalised, inverted=yes, kind="chest CT". Repeated, all count.',
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]


class Commands(TyperGroup):
    """Ends a command that fails with one line instead of a traceback."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order of the work."""
        return list(self.commands)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except CovsegError as error:
            _last_word(ctx, Failed(str(error), user_error=True))
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            _let_work_end()
            _last_word(ctx, Cancelled())
            typer.echo("Cancelled.", err=True)
            raise typer.Exit(130) from None


class Output:
    """Prints what happens, in the form that the person or the machine wants.

    Parameters
    ----------
    context : typer.Context
        Of the command; errors later find the form there.
    as_json : bool
    """

    def __init__(self, context: typer.Context, as_json: bool) -> None:
        self.as_json = as_json
        context.find_root().obj = self
        self._printed = 0.0  # share of the work that a line was printed for

    def line(self, text: str) -> None:
        """Print a result for a person; nothing where a machine listens."""
        if not self.as_json:
            typer.echo(text)

    def record(self, values: object) -> None:
        """Print a JSON value on one line if a machine listens."""
        if self.as_json:
            typer.echo(json.dumps(values, ensure_ascii=False))

    def follow(self, events: Generator[Event, None, None], doing: str) -> list[Event]:
        """Run a job to its end while showing how it goes; returns all that is not progress.

        Parameters
        ----------
        events : generator of Event
            From `jobs.run.run`; closed when this returns or raises, which cancels the job.
        doing : str
            What the job does, for a person.
        """
        if self.as_json or not sys.stderr.isatty():
            show = self._print_record if self.as_json else self._print_progress
            return self._follow(events, doing, show)
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        with Bar(TextColumn("{task.description}"), *columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(doing, total=None, speed="")

            def show_bar(doing: str, event: Event) -> None:
                if isinstance(event, Progress) and event.total:
                    speed = f"{event.per_second:.1f} {event.unit}/s" if event.per_second else ""
                    bar.update(task, completed=event.done, total=event.total, speed=speed)

            return self._follow(events, doing, show_bar)

    def _follow(self, events: Generator[Event, None, None], doing: str, show: Any) -> list[Event]:
        received: list[Event] = []
        last: Event | None = None
        self._printed = 0.0
        # Ctrl-C may strike while an event is shown; the job would go on until the traceback is dropped.
        with closing(events):
            for event in events:
                if event != last:
                    show(doing, event)
                    last = event
                if isinstance(event, Progress):
                    continue
                received.append(event)
                if isinstance(event, Notice) and not self.as_json:
                    typer.echo(f"Note: {event.text}", err=True)
        for event in received:
            if isinstance(event, Imported):
                self.line(f"Imported as {event.case_id}")
            elif isinstance(event, Written):
                self.line(f"Wrote {event.path}")
        return received

    def _print_record(self, doing: str, event: Event) -> None:
        self.record(as_record(event))

    def _print_progress(self, doing: str, event: Event) -> None:
        """Print a line for every tenth of the work."""
        if isinstance(event, Progress) and event.total and event.done / event.total >= self._printed + 0.1:
            self._printed = event.done / event.total
            left = f", {event.seconds_left:.0f} s left" if event.seconds_left else ""
            typer.echo(f"{doing}: {event.done} of {event.total} {event.unit}{left}", err=True)


def seen_as(texts: list[str] | None) -> tuple[tuple[str, bool | int | str | None], ...]:
    """Return what a person says of how a scan looks, as `PredictOptions.seen_as`; raises ScanError."""
    if not texts:
        return ()
    from napari_covseg.scans.appearance import parse_choices

    return tuple(parse_choices(texts).items())


def said_values(text: str | None) -> Values | None:
    """Return what a person says that the values of a scan are; raises ScanError."""
    if text is None:
        return None
    from napari_covseg.scans import VALUES

    for values in VALUES:
        if values.lower() == text.lower():
            return values
    raise ScanError(f"--values cannot be {text}; say one of {', '.join(VALUES)}.")


def _last_word(context: Any, event: Event) -> None:
    output = context.find_root().obj
    if isinstance(output, Output):
        output.record(as_record(event))


def _let_work_end() -> None:
    """Wait for the threads of a cancelled job, which tidy up; a second Ctrl-C ends at once."""
    try:
        for thread in threading.enumerate():
            if thread.name == WORK_THREAD:
                thread.join()
    except KeyboardInterrupt:
        with suppress(OSError):
            sys.stderr.write("Cancelled.\n")
            sys.stderr.flush()
        os._exit(130)
