"""Put trained networks into the folder from which `covseg models install` takes them.

    python benchmarks/ship_weights.py [RECIPE ...] [--fold 1]
    python benchmarks/ship_weights.py --list      # only the lists of what is there
    python benchmarks/ship_weights.py --default trained-weights/covseg.safetensors [--as covseg]
    python benchmarks/ship_weights.py --whole FILE --as NAME --assessed benchmarks/recognition/NAME.json

Of each recipe whose five folds are stored in `benchmarks/runs`, split by patient, the network of
one fold, always the same, becomes `weights/RECIPE.safetensors`, in half precision. Its card
says what the recipe reached over all folds, and what this network did on the patients that it
has not seen. Their weights are in `benchmarks/runs-weights` after `covseg assess`. The figures in
`weights/README.md` are those of the cards.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from napari_covseg.assess.comparison import Network, read_networks
from napari_covseg.assess.manifestations import trust_in_manifestations
from napari_covseg.assess.recognition import trust_in
from napari_covseg.learn.recipe import read_recipe
from napari_covseg.models.card import ModelCard, read_card
from napari_covseg.models.file import load_network, save_model
from napari_covseg.models.installed import list_of
from napari_covseg.networks.catalogue import BY_NAME

HERE = Path(__file__).parent
RUNS, TRAINED, SHIPPED = HERE / "runs", HERE / "runs-weights", HERE.parent / "weights"
PACKAGED = HERE.parent / "src/napari_covseg/models/weights"
SUMMARY = (
    "Labels lungs, ground-glass, consolidation and pleural effusion on axial chest CT, slice by slice, in HU "
    "or as pictures of any window. Ground-glass and consolidation were told apart on 50 pictures and on "
    "phantoms only, effusion on four patients: check every slice."
)
LIST = HERE.parent / "src/napari_covseg/models/published.json"
FIGURES = ("lungs", "lesion", "ground-glass", "consolidation", "pleural effusion")
MARKS = "<!-- figures, by benchmarks/ship_weights.py -->", "<!-- end of figures -->"
ROOM = 120e6  # bytes, of all together


def main() -> None:
    """Write the files and print a line for each."""
    parser = argparse.ArgumentParser(description="Put trained networks where they are installed from.")
    parser.add_argument("recipes", nargs="*", help="by default all that are complete")
    parser.add_argument("--fold", default="1")
    parser.add_argument("--default", type=Path, metavar="FILE", help="becomes the model of the package")
    parser.add_argument("--as", dest="name", default="covseg", help="another name: into the folder instead")
    parser.add_argument("--whole", type=Path, metavar="FILE", help="names what slices show: into the folder")
    parser.add_argument("--assessed", type=Path, metavar="JSON", help="how far that can be trusted")
    parser.add_argument("--list", action="store_true", help="only write the lists of what is there")
    arguments = parser.parse_args()
    if arguments.default:
        ship_ours(arguments.default, arguments.name)
    if arguments.whole:
        ship_whole(arguments.whole, arguments.name, arguments.assessed)
    if arguments.list or arguments.default or arguments.whole:
        write_lists()
        return
    networks = [one for one in read_networks(RUNS) if one.protocol == "patient"]
    for one in networks:
        if not one.complete or (arguments.recipes and one.recipe not in arguments.recipes):
            continue
        source = TRAINED / "patient" / one.recipe / f"fold{arguments.fold}.safetensors"
        if not source.is_file():
            raise SystemExit(f"{source} is not there: train it again with covseg assess.")
        network, card = load_network(source)
        SHIPPED.mkdir(exist_ok=True)
        target = SHIPPED / f"{one.recipe}.safetensors"
        save_model(target, network, shipped_card(card, one, arguments.fold))
        print(f"{target.name}: {target.stat().st_size / 1e6:.1f} MB")
    write_lists()
    total = sum(file.stat().st_size for file in SHIPPED.glob("*.safetensors"))
    print(f"together {total / 1e6:.1f} MB")
    if total > ROOM:
        raise SystemExit(f"That is more than {ROOM / 1e6:.0f} MB: leave some out.")


def write_lists() -> None:
    """Write what there is, with checksums for the package and with figures for people."""
    LIST.write_text(list_of(SHIPPED), "utf-8")
    page = SHIPPED / "README.md"
    before, rest = page.read_text("utf-8").split(MARKS[0])
    parts = before + MARKS[0], figures(SHIPPED), MARKS[1] + rest.split(MARKS[1])[1]
    page.write_text("\n\n".join(parts), "utf-8")


class Measured(NamedTuple):
    """What models must have in common to stand in one table: who was measured, and how."""

    what: str
    protocol: str


def figures(folder: Path) -> str:
    """Return a table of Dice for each measurement in the cards of the models there, best lesions first."""
    tables: dict[Measured, dict[str, dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for what, scores in read_card(path).scores.items():
            if isinstance(scores, dict) and "protocol" in scores:
                protocol = scores["protocol"].replace(f"weights/{path.name}", "MODEL")
                tables.setdefault(Measured(what, protocol), {})[path.stem] = scores
    return "\n\n".join(_table(*one, models) for one, models in tables.items())


def _table(what: str, protocol: str, models: dict[str, dict[str, Any]]) -> str:
    said = {
        name: {label: _dice(scores, label) for label in FIGURES if _dice(scores, label)}
        for name, scores in models.items()
    }
    labels = [label for label in FIGURES if any(label in one for one in said.values())]
    lines = [f"**{what[0].upper()}{what[1:]}**: {protocol}.", ""]
    lines += ["| Model | " + " | ".join(f"{label} Dice" for label in labels) + " |"]
    lines += ["| --- " * (len(labels) + 1) + "|"]
    for name, one in sorted(said.items(), key=lambda item: item[1].get("lesion", ""), reverse=True):
        lines.append(f"| `{name}` | " + " | ".join(one.get(label, "") for label in labels) + " |")
    return "\n".join(lines)


def _dice(scores: dict[str, Any], label: str) -> str:
    """Return a label's Dice with its interval; nothing where there is none."""
    name = f"{label}s" if f"{label}s Dice" in scores else label
    if f"{name} Dice" not in scores:
        return ""
    low, high = scores.get(f"{name} 95 % interval") or scores[f"{name} Dice 95 % interval"]
    return f"{scores[f'{name} Dice']:.3f} ({low:.3f}–{high:.3f})"


def ship_ours(file: Path, name: str) -> None:
    """Put a model that the queue has trained into the package, or under another name into the folder."""
    network, card = load_network(file)
    target = (PACKAGED if name == "covseg" else SHIPPED) / f"{name}.safetensors"
    chosen = read_recipe(card.recipe["name"]).threshold  # perhaps after the training
    thresholds = {**card.thresholds, **(chosen if isinstance(chosen, dict) else {})}
    # A second look at the lungs alone costs less than one at whole mirrored slices.
    save_model(target, network, replace(card, id=name, summary=SUMMARY, tta="lungs", thresholds=thresholds))
    print(f"{target.name}: {target.stat().st_size / 1e6:.1f} MB")


def ship_whole(file: Path, name: str, assessed: Path) -> None:
    """Put a model that names what slices show into the folder, with what it was assessed to be worth."""
    network, card = load_network(file)
    stored = json.loads(assessed.read_text("utf-8"))
    words = trust_in if card.task == "recognition" else trust_in_manifestations
    trust, trusted = words(stored["assessed"])
    scores = {one["protocol"]: one["figures"] for one in stored["assessed"]}
    scores["protocol"] = f"Stored in benchmarks/recognition/{assessed.name}, see docs/recognition.md"
    target = SHIPPED / f"{name}.safetensors"
    save_model(target, network, replace(card, id=name, trust=trust, trusted=trusted, scores=scores))
    print(f"{target.name}: {target.stat().st_size / 1e6:.1f} MB; {trust}")


def licences(table: Path = HERE / "training.toml") -> dict[str, str]:
    """Return the licence of each source in a training table, as cards name them."""
    sources = tomllib.loads(table.read_text("utf-8"))["source"]
    return {one.get("patient") or one["patients"]: one["licence"] for one in sources}


def shipped_card(card: ModelCard, runs: Network, fold: str) -> ModelCard:
    """Name the model after its recipe, and say how that scored and what it cannot do."""
    entry = BY_NAME[runs.recipe]
    tested = {name: round(value, 3) for name, value in card.scores.get("test", {}).items()}
    size, steps = card.preparation["size"], card.recipe["trained"]["steps"]
    sources = len(card.split["training"])
    return replace(
        card,
        id=runs.recipe,
        title=f"{entry.title} ({entry.paper})",
        summary=(
            f"Labels lungs and COVID-19 lesions on axial chest CT, slice by slice, at {size}² pixels. "
            f"A network of {entry.paper}, trained for comparison: {steps} steps on {sources} sources, much "
            "less than its paper asks for. The default model is better; check every slice."
        ),
        sources=card.sources or licences(),
        scores={**scores(runs), f"fold {fold}, this network": tested},
    )


def scores(runs: Network) -> dict[str, Any]:
    """Return the Dice by patient of all folds, as a card has it."""
    told: dict[str, Any] = {}
    for output, name in (("lungs", "lungs"), ("lesion", "lesions")):
        mean = runs.mean(output, "dice")
        told[f"{name} Dice"] = round(mean.mean, 3)
        told[f"{name} 95 % interval"] = [round(mean.low, 3), round(mean.high, 3)]
    told["protocol"] = (
        f"{mean.n} patients in {len(runs.records)} folds, each predicted by a network that has not seen the "
        "patient; Dice pooled over a patient's slices, then averaged; bootstrap over patients"
    )
    return {"cross-validation": told}


if __name__ == "__main__":
    main()
