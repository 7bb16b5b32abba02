"""What a shell sees: ``covseg``, one command for each thing that the panels do."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_covseg.cli import assess, case, learn, model, predict, recognise, scan, train, viewer
from napari_covseg.cli.output import Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"covseg {version('napari-covseg')}")
        raise typer.Exit


@app.callback()
def covseg(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Label lungs and COVID-19 findings on chest CT. Research use only, not for diagnosis."""


app.command()(viewer.demo)
app.command("open")(viewer.open_viewer)
app.command()(scan.info)
app.command("import")(scan.import_scan)
app.command()(recognise.recognise)
app.command()(predict.predict)
app.command()(train.train)
app.command()(learn.finetune)
app.add_typer(assess.app, name="assess")
app.command()(case.export)
app.add_typer(model.app, name="models")
app.add_typer(case.app, name="cases")
