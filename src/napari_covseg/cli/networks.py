"""``covseg assess DATA --recipe …``: cross-validate networks, and compare them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_covseg.cli.output import DeviceOption, JsonOption, Output
from napari_covseg.errors import JobError, ModelError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_covseg.assess.cross_validation import FoldJob
    from napari_covseg.assess.folds import Fold
    from napari_covseg.jobs.events import Event
    from napari_covseg.labels import Task
    from napari_covseg.learn.recipe import Recipe

RUNS = Path("benchmarks/runs")


def networks(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Folder with a folder per patient, or a .toml file, as for `covseg train`; with --show the "
            "folder of the runs."
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="segmentation of slices; recognition, of which class single pictures are; or "
            "manifestations, which findings slices show."
        ),
    ] = "segmentation",
    recipe: Annotated[
        list[str] | None, typer.Option(help="Network to train, may be repeated; a wrong name lists all.")
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="patient; source, which leaves out one source after the other; or slice, as in the "
            "papers, where patients are on both sides."
        ),
    ] = "patient",
    folds: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with [folds] and [validation], by source with [leave_out]; by default those of "
            "the data."
        ),
    ] = None,
    fold: Annotated[
        list[str] | None, typer.Option(help="Do only this fold, or source; may be repeated. By default all.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=32, help="Pixels per side; by default the recipe's.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Shorten the recipes to so many steps.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time for a fold, as 90s, 60m or 8h: the recipes are shortened to fit.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the stored runs; of recognition nothing is stored without it.")
    ] = RUNS,
    untaught: Annotated[
        Path | None,
        typer.Option(
            help="For manifestations: a description of slices that never teach, to test on as well."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Folder of models and checkpoints; by default OUT-weights. For other tasks what the body "
            "knows, as for `covseg train`; or a folder of models, one for each fold that has not seen it."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; by default all cores.")] = None,
    device: DeviceOption = "auto",
    lungs_from: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Crop to the lungs that this model finds, which must not have seen who is tested; a name, a "
            "file, or a folder with models of folds.",
            show_default=False,
        ),
    ] = None,
    half: Annotated[
        bool | None,
        typer.Option(help="Whether bfloat16 may do what float32 would; by default on a GPU only."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Only print the tables of the stored runs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Cross-validate networks and print them side by side.

    What is stored in OUT is not made again, and an interrupted fold goes on. Several processes with the
    same command share the folds.
    """
    output = Output(context, as_json)
    if task in ("recognition", "manifestations"):
        if data is None or not recipe:
            raise JobError(
                "Give the data, a .toml description of what is labelled, and at least one --recipe."
            )
        given = {
            "--protocol": protocol != "patient", "--folds": folds, "--fold": fold, "--size": size,
            "--budget": budget, "--lungs-from": lungs_from, "--half": half is not None,
            "--show": show,
        }  # fmt: skip
        if useless := [name for name, value in given.items() if value]:
            raise JobError(f"{useless[0]} is for segmentation: leave it out.")
        kept = None if out == RUNS else out
        if task == "recognition":
            _recognition(output, data, recipe, weights, steps, device, threads, kept)
        else:
            _manifestations(output, data, untaught, recipe, weights, steps, device, threads, kept)
        return
    if task != "segmentation":
        raise JobError(
            f"There is no task {task!r} to assess: choose segmentation, recognition or manifestations."
        )
    if untaught is not None:
        raise JobError("--untaught is for manifestations: leave it out.")
    if not show:
        from napari_covseg.assess.comparison import LEAK, PROTOCOLS

        if data is None or not recipe:
            raise JobError("Give the data and at least one --recipe, or --show to print the stored runs.")
        if protocol not in PROTOCOLS:
            raise JobError(f"There is no protocol {protocol!r}: choose patient, source or slice.")
        if protocol == "slice":
            typer.echo(f"Warning: {LEAK}", err=True)
        if steps is not None and budget is not None:
            raise ModelError("Give either --steps or --budget: each says how long to train.")
        places = out, weights or out.with_name(f"{out.name}-weights")
        how = device, threads, budget, half, lungs_from
        jobs = _jobs(data, recipe, protocol, folds, fold, size, steps, places, *how)
        output.follow(_events(output, jobs), "Folds")
    _report(output, (data or out) if show else out, recipe or ())


def _chosen(
    task: Task, names: Sequence[str], steps: int | None, device: str, threads: int | None
) -> tuple[list[Recipe], str]:
    """Return the recipes of a task, with as many steps as asked for, and the device; set torch's threads."""
    import torch

    from napari_covseg.learn.recipe import read_recipe
    from napari_covseg.models.file import choose_device

    chosen = [read_recipe(name, task) for name in dict.fromkeys(names)]
    if steps is not None:
        chosen = [dataclasses.replace(one, steps=steps, epochs=None) for one in chosen]
    if threads is not None:
        torch.set_num_threads(threads)
    return chosen, str(choose_device(device))


def _recognition(
    output: Output,
    data: Path,
    names: Sequence[str],
    weights: Path | None,
    steps: int | None,
    device: str,
    threads: int | None,
    out: Path | None,
) -> None:
    """Assess recipes for recognition, print what came out, and store it if a folder is named."""
    from napari_covseg.assess.recognition import assess_recognition, recognition_tables, store_recognition
    from napari_covseg.assess.tables import without_nan
    from napari_covseg.learn.labelled_pictures import read_labelled_pictures

    chosen, where = _chosen("recognition", names, steps, device, threads)
    pictures = read_labelled_pictures(data)
    found = []
    for one in chosen:
        mine = []
        for told in assess_recognition(pictures.of_classes(one.outputs), one, weights, where):
            output.record(without_nan(dataclasses.asdict(told)))
            mine.append(told)
        if out is not None:
            output.line(f"Wrote {store_recognition(out, data.stem, one, mine)}")
        found += mine
    output.line(recognition_tables(found, {one.name: one.outputs for one in chosen}))


def _manifestations(
    output: Output,
    data: Path,
    untaught: Path | None,
    names: Sequence[str],
    weights: Path | None,
    steps: int | None,
    device: str,
    threads: int | None,
    out: Path | None,
) -> None:
    """Assess recipes for manifestations, print what came out, and store it if a folder is named."""
    from napari_covseg.assess.manifestations import assess_manifestations, manifestation_tables
    from napari_covseg.assess.recognition import store_recognition
    from napari_covseg.assess.tables import without_nan
    from napari_covseg.learn.manifestations import SIDE, as_seen
    from napari_covseg.learn.training_set import read_training_set
    from napari_covseg.models.preparation import Preparation

    chosen, where = _chosen("manifestations", names, steps, device, threads)
    found = []
    for one in chosen:
        preparation = Preparation.from_card(one.preparation)
        taught, apart = (
            as_seen(read_training_set(path, outputs=one.outputs, size=max(SIDE, one.size)), preparation)
            if path is not None
            else None
            for path in (data, untaught)
        )
        assert taught is not None
        mine = []
        for told in assess_manifestations(taught, one, apart, weights, where):
            output.record(without_nan(dataclasses.asdict(told)))
            mine.append(told)
        if out is not None:
            output.line(f"Wrote {store_recognition(out, data.stem, one, mine)}")
        found += mine
    output.line(manifestation_tables(found))


def _jobs(
    data: Path,
    recipes: Sequence[str],
    protocol: Any,
    file: Path | None,
    names: Sequence[str] | None,
    size: int | None,
    steps: int | None,
    places: tuple[Path, Path],
    device: str,
    threads: int | None,
    budget: str | None,
    half: bool | None,
    lungs_from: str | None,
) -> list[FoldJob]:
    """Read the data, and say what is to be done."""
    from napari_covseg.cli.train import seconds_of
    from napari_covseg.learn.recipe import read_recipe

    chosen = [read_recipe(name) for name in dict.fromkeys(recipes)]
    chosen = chosen if size is None else [one.at_size(size) for one in chosen]
    chosen = chosen if steps is None else [one.shortened(steps) for one in chosen]
    seconds = None if budget is None else seconds_of(budget)

    import torch

    from napari_covseg.assess.cross_validation import FoldJob
    from napari_covseg.assess.folds import lungs_model, make_folds
    from napari_covseg.jobs.allocator import keep_freed_memory
    from napari_covseg.learn.train_model import GUISES_SIZE, read_for
    from napari_covseg.models.file import choose_device

    where = str(choose_device(device))
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    if protocol == "source" and file is None:
        file = data
    divided: dict[tuple[Any, ...], list[Fold]] = {}
    jobs = []
    for one in chosen:
        seen = one.outputs, max(one.size, GUISES_SIZE)  # what the slices that are read depend on
        if seen not in divided:
            divided[seen] = make_folds(read_for(data, one), protocol, file)
        every = tuple(fold.name for fold in divided[seen])
        if unknown := set(names or ()) - set(every):
            raise JobError(f"There is no fold {', '.join(sorted(unknown))}: there are {', '.join(every)}.")
        for fold in divided[seen]:
            if not names or fold.name in names:
                finder = None if lungs_from is None else lungs_model(fold, lungs_from)
                jobs.append(FoldJob(one, protocol, fold, every, *places, where, seconds, half, finder))
    return jobs


def _events(output: Output, jobs: Sequence[FoldJob]) -> Generator[Event, None, None]:
    """Do the jobs, and tell of them as events."""
    from napari_covseg.assess.cross_validation import run_folds
    from napari_covseg.jobs.events import Notice
    from napari_covseg.jobs.steps import ProgressMeter

    meter, done = ProgressMeter(len(jobs), "folds"), 0
    for told in run_folds(jobs):
        name = f"{told.job.recipe.name}, fold {told.job.fold.name}"
        if told.progress is not None:
            record = {
                "event": "training_progress",
                "recipe": told.job.recipe.name,
                "fold": told.job.fold.name,
            }
            output.record({**record, **dataclasses.asdict(told.progress)})
            if told.progress.validation is not None:
                scores = ", ".join(f"{key} {value:.3f}" for key, value in told.progress.validation.items())
                yield Notice(f"{name}: step {told.progress.step} of {told.progress.steps}, Dice {scores}")
            continue
        done += 1
        if told.busy:
            yield Notice(f"{name} is being trained by {told.busy}")
        yield meter.at(done)


def _report(output: Output, folder: Path, recipes: Sequence[str]) -> None:
    from napari_covseg.assess.comparison import read_networks
    from napari_covseg.assess.tables import network_record, network_tables

    found = read_networks(folder, recipes)
    if not found and not folder.is_dir():
        raise JobError(f"There is no folder {folder} with stored runs: name it, or train a network first.")
    output.line(network_tables(found, recipes))
    output.record(network_record(found, recipes))
