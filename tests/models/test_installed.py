"""A model is installed whole or not at all, listed at once, and gone when it is removed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from torch import nn
from typer.testing import CliRunner

from napari_covseg.cli import app
from napari_covseg.errors import ModelError
from napari_covseg.models import installed
from napari_covseg.models.card import ModelCard
from napari_covseg.models.catalogue import DEFAULT, available, find
from napari_covseg.models.file import save_model
from napari_covseg.models.installed import install, models_folder, remove


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COVSEG_MODELS", str(tmp_path / "data" / "models"))
    return tmp_path / "data" / "models"


def ids(origin: str) -> list[str]:
    return [entry.card.id for entry in available() if entry.origin == origin]


def test_installed_listed_replaced_removed(
    file: Path, network: nn.Module, card: ModelCard, own_folder: Path
) -> None:
    shipped = ids("shipped")
    assert shipped[0] == DEFAULT and ids("installed") == []
    said, path = install("tiny", file)
    assert said == card and path.parent == own_folder and path.read_bytes() == file.read_bytes()
    assert ids("installed") == ["tiny"] and ids("shipped") == shipped
    assert find("tiny").path == path and find("tiny").origin == "installed"

    save_model(file, network, replace(card, title="A newer one"))
    install("tiny", file.parent)  # the folder that holds it
    assert find("tiny").card.title == "A newer one"
    assert [one.name for one in own_folder.iterdir()] == ["tiny.safetensors"]

    assert remove("tiny") == path
    assert ids("installed") == []
    with pytest.raises(ModelError, match="no installed model 'tiny': installed are none"):
        remove("tiny")


def test_what_is_damaged_is_not_installed(file: Path, own_folder: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(ModelError, match=r"tiny\.safetensors is not complete: get it again"):
        install("tiny", file)
    assert not own_folder.exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("small", "holds the model tiny, not small"), ("../tiny", "holds the model tiny"), ("", "holds")],
)
def test_a_file_under_another_name(file: Path, name: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        install(name, file)


def test_a_name_is_no_way_out_of_the_folder(own_folder: Path) -> None:
    (own_folder.parent).mkdir()
    (own_folder.parent / "precious.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="is no name of a model"):
        remove("../precious")
    assert (own_folder.parent / "precious.safetensors").exists()


def test_from_a_folder_or_from_the_repository(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"no model 'large' in .*: it holds tiny"):
        install("large", file.parent)
    monkeypatch.setattr(installed, "_CHECKOUT", tmp_path)
    with pytest.raises(ModelError, match="with --from"):
        install("tiny")
    (tmp_path / "weights").mkdir()
    (tmp_path / "pyproject.toml").touch()
    file.rename(tmp_path / "weights" / file.name)
    install("tiny")
    assert ids("installed") == ["tiny"]


@pytest.fixture
def address(file: Path) -> Iterator[str]:
    """The address of the folder that holds the file, on this machine."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(file.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_from_an_address(address: str, own_folder: Path) -> None:
    install("tiny", address)
    install("tiny", f"{address}/tiny.safetensors")
    assert ids("installed") == ["tiny"]
    with pytest.raises(ModelError, match=r"/large\.safetensors gives no file .*404.*: check the address"):
        install("large", address)
    assert [one.name for one in own_folder.iterdir()] == ["tiny.safetensors"]


def test_an_address_where_nobody_answers(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(*_: object, **__: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr("urllib.request.urlopen", cut_off)
    with pytest.raises(ModelError, match=r"cannot be downloaded \(timed out\): check the address"):
        install("tiny", address)


def test_a_published_name_is_that_file_and_no_other(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = installed.PublishedModel("tiny", "Tiny", "", file.stat().st_size, "0" * 64)
    monkeypatch.setattr(installed, "published", lambda: (said,))
    with pytest.raises(ModelError, match=r"is not the model tiny that belongs to this version .*SHA-256"):
        install("tiny", file)
    assert ids("installed") == []
    right = replace(said, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setattr(installed, "published", lambda: (right,))
    install("tiny", file)
    assert ids("installed") == ["tiny"]


def test_the_list_is_of_the_files_that_are_there() -> None:
    weights = Path(__file__).parents[2] / "weights"
    there = Path(installed.__file__).with_name("published.json").read_text("utf-8")
    assert json.loads(there) == json.loads(installed.list_of(weights)), (
        "run benchmarks/ship_weights.py --list"
    )


def test_all_that_are_published(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(
        installed, "published", lambda: (installed.PublishedModel("tiny", "Tiny", "", 1, digest),)
    )
    run = CliRunner()
    assert "To be had" in run.invoke(app, ["models"]).output
    assert run.invoke(app, ["models", "install", "--all", "--from", str(file.parent)]).exit_code == 0
    assert ids("installed") == ["tiny"]
    assert "To be had" not in run.invoke(app, ["models"]).output
    assert run.invoke(app, ["models", "install"]).exit_code == 2


def test_a_damaged_one_and_a_double_are_passed_over(file: Path, network: nn.Module, card: ModelCard) -> None:
    install("tiny", file)
    (models_folder() / "broken.safetensors").write_bytes(b"nothing")
    save_model(models_folder() / "double.safetensors", network, replace(card, id=DEFAULT))
    assert ids("installed") == ["tiny"]
    assert find(DEFAULT).origin == "shipped"


def test_a_folder_that_cannot_be_written(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_bytes(b"")
    monkeypatch.setenv("COVSEG_MODELS", str(tmp_path / "taken" / "models"))
    with pytest.raises(ModelError, match=r"cannot be copied to .*COVSEG_MODELS"):
        install("tiny", file)


def test_from_the_shell(file: Path) -> None:
    def covseg(*arguments: str) -> tuple[int, str, Any]:
        result = CliRunner().invoke(app, ["models", *arguments])
        last = result.stdout.splitlines()[-1] if result.stdout else ""
        return result.exit_code, result.output, json.loads(last) if last.startswith(("{", "[")) else None

    code, text, _ = covseg("install", "tiny", "--from", str(file))
    assert code == 0 and "Installed tiny in" in text and "Licence of the weights: CC0" in text
    _, text, _ = covseg()
    assert any(line.startswith("tiny ") and " installed " in line for line in text.splitlines())
    _, _, listed = covseg("--json")
    origins = {one["id"]: one["origin"] for one in listed}
    assert origins[DEFAULT] == "shipped" and origins["tiny"] == "installed"
    assert covseg("remove", "tiny", "--json")[2]["removed"] == "tiny"
    code, text, _ = covseg("remove", "tiny")
    assert code == 2 and "no installed model" in text
