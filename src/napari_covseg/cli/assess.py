"""``covseg assess``: measurements on patients whose truth is known."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup

from napari_covseg.cli.networks import networks
from napari_covseg.cli.output import JsonOption, Output
from napari_covseg.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_covseg.jobs.events import Event
    from napari_covseg.review.order import Strategy


class _Measurements(TyperGroup):
    """Takes `covseg assess DATA …` for `covseg assess networks DATA …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the measurement where none is named."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["networks", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Measurements,
    no_args_is_help=True,
    help="Measure on patients whose truth is known: networks side by side (the word may be left out), and "
    "human effort.",
)
app.command()(networks)

DataArgument = Annotated[
    Path, typer.Argument(help="Folder with a folder per patient, or a .toml file, as for `covseg train`.")
]
ModelsArgument = Annotated[
    Path, typer.Argument(help="Folder of models, each of which has never seen its test patients.")
]
PatientsOption = Annotated[
    str | None, typer.Option(help="Names, with commas; by default all that a model was tested on.")
]


@app.command()
def effort(
    context: typer.Context,
    data: DataArgument,
    models: ModelsArgument,
    out: Annotated[
        Path, typer.Option(help="Folder for the results; what is there already is not made again.")
    ],
    patients: PatientsOption = None,
    strategies: Annotated[str, typer.Option(help="Slice orders to compare, with commas.")] = "position,gain",
    conditions: Annotated[
        str,
        typer.Option(help="With commas: memory, no-memory (fine-tuning without it), none (no fine-tuning)."),
    ] = "none,memory",
    goal: Annotated[float, typer.Option(help="Lesion Dice at which the work is done.")] = 0.90,
    most: Annotated[int | None, typer.Option(min=1, help="Slices to correct at most.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Corrected slices from one fine-tuning to the next.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the fine-tuning.")] = 0,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin each fine-tuning with the first model again.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Patients at a time.")] = 1,
    figure: Annotated[
        Path | None, typer.Option(help="Picture to write; effort.png in the folder by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Correct patients as a radiologist who knows the truth, and measure what is left to do."""
    output = Output(context, as_json)
    from napari_covseg.assess.effort import CONDITIONS, Protocol
    from napari_covseg.assess.effort_tables import check_matplotlib
    from napari_covseg.assess.patients import read_assessed
    from napari_covseg.review.order import STRATEGIES

    check_matplotlib()
    wanted = _chosen(strategies, STRATEGIES, "strategy"), _chosen(conditions, CONDITIONS, "condition")
    protocols = [
        Protocol(
            strategy=cast("Strategy", strategy),
            condition=condition,
            every=every,
            goal=goal,
            most=most,
            seed=seed,
            restart=restart,
        )
        for strategy, condition in itertools.product(*wanted)
    ]
    people = read_assessed(data, models, _names(patients))
    records: list[dict[str, Any]] = []
    output.follow(_simulations(output, records, people, protocols, out, jobs), "Correcting")
    _report(output, records, out, figure or out / "effort.png", most)


def _simulations(
    output: Output, records: list[dict[str, Any]], people: Any, protocols: Any, out: Path, jobs: int
) -> Generator[Event, None, None]:
    """Run all and collect the records, telling of each."""
    import os

    from napari_covseg.assess.effort import run_all
    from napari_covseg.jobs.allocator import KEEP_FREED, keep_freed_memory
    from napari_covseg.jobs.steps import ProgressMeter

    keep_freed_memory()
    before = dict(os.environ)
    os.environ.update(KEEP_FREED)  # of the processes that are started
    try:
        meter = ProgressMeter(len(people) * len(protocols), "patients")
        for record in run_all(people, protocols, out, jobs=jobs):
            records.append(record)
            output.record(record)
            yield meter.at(len(records))
    finally:
        for name in KEEP_FREED:
            os.environ.pop(name)
        os.environ.update(before)


def _report(
    output: Output, records: Sequence[dict[str, Any]], out: Path, figure: Path, most: int | None
) -> None:
    from napari_covseg.assess.effort_tables import draw_effort, effort_tables, points_csv

    tables = effort_tables(records)
    try:
        (out / "effort.md").write_text(tables, encoding="utf-8")
        (out / "effort.csv").write_text(points_csv(records), encoding="utf-8")
    except OSError as error:
        raise JobError(
            f"The tables cannot be written to {out} ({error.strerror}): make room there."
        ) from error
    output.line(tables)
    draw_effort(records, figure, most=most)
    output.line(f"Wrote {figure}")


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _chosen(text: str, known: Sequence[str], what: str) -> list[str]:
    names = _names(text)
    if not names or set(names) - set(known):
        raise JobError(f"{text!r} names no {what} that is known here: choose from {', '.join(known)}.")
    return list(dict.fromkeys(names))
