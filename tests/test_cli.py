from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import typer
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent / "jobs"))
from tiny_model import tiny_scan, write_tiny_model

from napari_covseg.cases import chunks
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.rescue import save
from napari_covseg.cases.workspace import Workspace
from napari_covseg.cli import app
from napari_covseg.cli.output import Output
from napari_covseg.jobs.events import Event, Progress
from napari_covseg.models.export import Exported
from napari_covseg.networks.catalogue import NetworkEntry


def covseg(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def records(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def refused(result: Result) -> str:
    """Return the one line of a user's error."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("Error: ")
    assert len([line for line in lines if line]) == 1
    return lines[-1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An oblique NIfTI file, so that a lost orientation shows."""
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    affine = np.array([[0, -1.5, 0, 10], [-1.5, 0, 0, 20], [0, 0, 5.0, 30], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(tiny_scan().voxels.transpose(2, 1, 0), affine), path)
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def case(workspace: Path, scan: Path) -> str:
    (imported,) = [
        r
        for r in records(covseg("import", scan, "--workspace", workspace, "--json"))
        if r["event"] == "imported"
    ]
    return str(imported["case_id"])


def test_version_and_help_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom napari_covseg.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'napari', 'numpy', 'zarr', 'SimpleITK'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"
    for command in "demo open info import predict train export models cases".split():
        assert f" {command} " in done.stdout
    assert covseg("--version").stdout.startswith("covseg ")


def test_info(scan: Path) -> None:
    told = covseg("info", scan).stdout
    assert "7 slices of 48 x 40" in told and "5 x 1.5 x 1.5 mm" in told
    (facts,) = records(covseg("info", scan, "--json"))
    assert facts["shape"] == [7, 48, 40] and facts["intensity"] == "HU"


def test_predict_writes_both_maps_in_the_scans_geometry(scan: Path, model: Path, tmp_path: Path) -> None:
    lesions, lungs = tmp_path / "lesions.nii.gz", tmp_path / "lungs.nrrd"
    result = covseg(
        "predict", scan, "--out", lesions, "--lungs-out", lungs, "--model", model, "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    assert f"Wrote {lesions}" in result.stdout and f"Wrote {lungs}" in result.stdout
    source = sitk.ReadImage(str(scan))
    for path, most in ((lesions, 4), (lungs, 3)):
        image = sitk.ReadImage(str(path))
        assert image.GetSize() == source.GetSize()
        assert np.allclose(image.GetDirection(), source.GetDirection())
        assert np.allclose(image.GetOrigin(), source.GetOrigin())
        assert np.allclose(image.GetSpacing(), source.GetSpacing())
        assert set(np.unique(sitk.GetArrayFromImage(image))) <= set(range(most + 1))
    assert np.allclose(nib.load(lesions).affine, nib.load(scan).affine)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lesions.nii.gz", "lesions.tsv", "lungs.nrrd"]


@pytest.mark.parametrize("option", ["--out", "--lungs-out"])
def test_predict_writes_what_is_asked_for(scan: Path, model: Path, tmp_path: Path, option: str) -> None:
    out = tmp_path / "labels.mha"
    assert covseg("predict", scan, option, out, "--model", model).exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.mha", "labels.tsv"]


def test_predict_takes_options(scan: Path, model: Path, tmp_path: Path) -> None:
    out, unsure = tmp_path / "lesions.nii.gz", tmp_path / "unsure.nii.gz"
    how = ["--tta", "flips", "--min-pixels", "2", "--min-ml", "0.001", "--uncertainty-out", unsure]
    result = covseg("predict", scan, "--out", out, "--model", model, "--model", model, *how)
    assert result.exit_code == 0, result.output
    assert nib.load(unsure).shape == nib.load(out).shape
    assert len(np.unique(nib.load(unsure).dataobj)) > 2
    assert covseg("predict", scan, "--out", out, "--tta", "rotate").exit_code == 2


def test_predict_tells_a_machine_each_event(scan: Path, model: Path, tmp_path: Path) -> None:
    result = covseg("predict", scan, "--out", tmp_path / "out.nii", "--model", model, "--json")
    told = records(result)
    assert [r["event"] for r in told if r["event"] != "progress"] == ["written", "finished"]
    assert told[-3] == {"event": "progress", "done": 7, "total": 7, "unit": "slices"} | {
        key: told[-3][key] for key in ("per_second", "seconds_left")
    }


def test_a_folder_of_pictures_becomes_a_volume(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for z, image in enumerate(tiny_scan(3).voxels):
        Image.fromarray(((image + 1000) / 5).clip(0, 255).astype(np.uint8)).save(folder / f"{z}.png")
    out = tmp_path / "out.nii.gz"
    assert covseg("predict", folder, "--lungs-out", out, "--model", model).exit_code == 0
    assert sitk.ReadImage(str(out)).GetSize() == (48, 40, 3)
    assert set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(out))))) <= {0, 3}


def test_a_threshold_is_used(scan: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nii.gz"
    assert covseg("predict", scan, "--out", out, "--model", model, "--threshold", "1").exit_code == 0
    assert not np.asarray(nib.load(out).dataobj).any()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["predict"], "Name either a scan"),
        (["predict", "SCAN"], "nothing to write"),
        (["predict", "SCAN", "--case", "x", "--out", "o.nii"], "Name either a scan"),
        (["predict", "SCAN", "--workspace", "x", "--out", "o.nii"], "needs no workspace"),
        (["predict", "SCAN", "--out", "o.png"], "end in"),
        (["predict", "SCAN", "--out", "missing/o.nii.gz"], "does not exist"),
        (["predict", "missing", "--out", "o.nii.gz", "--model", "MODEL"], "does not exist"),
        (["predict", "SCAN", "--out", "o.nii.gz", "--model", "nobody"], "nobody"),
        (["predict", "SCAN", "--out", "o.nii.gz", "--model", "MODEL", "--device", "abacus"], "abacus"),
        (["predict", "--case", "x", "--workspace", "missing"], "no workspace"),
        (["info", "missing"], "does not exist"),
        (["import", "missing"], "does not exist"),
        (["export", "x", "--workspace", "missing"], "nothing to write"),
        (["export", "x", "--workspace", "missing", "--lungs", "o.nii.gz"], "no workspace"),
        (["models", "show", "nobody"], "nobody"),
        (["open", "missing"], "neither a path nor a case"),
        (["train", "missing", "--out", "m.safetensors"], "missing"),
        (["train", "missing", "--out", "m.pt"], "safetensors"),
        (["train", "missing", "--out", "missing/m.safetensors"], "folder"),
        (["train", "missing", "--out", "m.safetensors", "--recipe", "nobody"], "known are covseg, amer2021-"),
        (["train", "missing", "--out", "m.safetensors", "--budget", "soon"], "'soon' is no time"),
        (["train", "missing", "--out", "m.safetensors", "--budget", "1h", "--steps", "9"], "Give one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_users_errors_are_one_line(
    arguments: list[str],
    sentence: str,
    scan: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [{"SCAN": str(scan), "MODEL": str(model)}.get(a, a) for a in arguments]
    assert sentence in refused(covseg(*given))
    assert not list(tmp_path.glob("o.*"))


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, scan: Path) -> None:
    """Even before the model is looked for."""
    assert "folder" in refused(
        covseg("predict", scan, "--out", tmp_path / "no" / "o.nii", "--model", "nobody")
    )


def test_errors_reach_a_machine_too(tmp_path: Path) -> None:
    result = covseg("info", tmp_path / "missing", "--json")
    assert result.exit_code == 2
    assert records(result)[-1]["event"] == "failed" and records(result)[-1]["user_error"]


def test_import_cases_predict_export(
    workspace: Path, case: str, scan: Path, model: Path, tmp_path: Path
) -> None:
    (listed,) = records(covseg("cases", "--workspace", workspace, "--json"))[0]
    assert listed["id"] == case and listed["shape"] == [7, 48, 40]
    assert case in covseg("cases", "--workspace", workspace).stdout

    result = covseg("predict", "--case", case, "--workspace", workspace, "--model", model, "--json")
    assert result.exit_code == 0, result.output
    told = [r["event"] for r in records(result) if r["event"] != "progress"]
    assert told[0] == "prediction_started" and told[-2:] == ["finished", "merged"] and "slices_done" in told

    lungs = tmp_path / "lungs.nii.gz"
    result = covseg("export", case, "--workspace", workspace, "--lungs", lungs)
    assert result.stdout == f"Wrote {lungs}\n"
    labels = Workspace.open(workspace).case(case).labels("lungs")[...]
    exported = np.asarray(nib.load(lungs).dataobj)
    assert labels.any() and np.count_nonzero(exported) == np.count_nonzero(labels)
    assert np.allclose(nib.load(lungs).affine, nib.load(scan).affine)


def test_predict_a_case_into_files(workspace: Path, case: str, model: Path, tmp_path: Path) -> None:
    out, unsure = tmp_path / "lesions.nii", tmp_path / "unsure.nii"
    files = ["--out", out, "--uncertainty-out", unsure]
    result = covseg("predict", "--case", case, "--workspace", workspace, "--model", model, *files)
    assert result.exit_code == 0 and f"Wrote {out}" in result.stdout and f"Wrote {unsure}" in result.stdout
    assert len(np.unique(nib.load(unsure).dataobj)) > 2
    labels = Workspace.open(workspace).case(case).labels("lesions")[...]
    assert np.count_nonzero(nib.load(out).dataobj) == np.count_nonzero(labels)


def test_a_case_that_is_open_keeps_the_run(workspace: Path, case: str, model: Path) -> None:
    with OpenCase(Workspace.open(workspace), case):
        line = refused_with_progress(
            covseg("predict", "--case", case, "--workspace", workspace, "--model", model)
        )
    assert "is kept as" in line
    (info,) = Workspace.open(workspace).case(case).predictions()
    assert info.finished


def refused_with_progress(result: Result) -> str:
    assert result.exit_code == 2
    return result.stderr.splitlines()[-1]


def test_no_workspace_yet_is_no_error() -> None:
    assert "no cases yet" in covseg("cases").stdout
    assert records(covseg("cases", "--json")) == [[]]


def test_check_says_what_is_damaged(workspace: Path, case: str) -> None:
    result = covseg("cases", "check", workspace)
    assert (result.exit_code, result.stdout) == (0, f"{workspace}: nothing damaged\n")
    (workspace / "cases" / case / "0" / "c.2.0.0").write_bytes(b"")
    for arguments in (("check", workspace), ("--workspace", workspace, "check")):
        result = covseg("cases", *arguments)
        assert result.exit_code == 1
        assert result.stdout.startswith("damaged ") and f"{workspace}: 1 damaged" in result.stdout
    result = covseg("cases", "check", workspace, "--json")
    assert result.exit_code == 1
    ((found,),) = records(result)
    assert found["level"] == "damaged" and case in found["path"]
    assert "is no workspace" in refused(covseg("cases", "check", workspace / "cases" / case / "0" / "no"))


def test_history_lists_who_did_what(workspace: Path, case: str, tmp_path: Path) -> None:
    with OpenCase(Workspace.open(workspace), case, who="Ada") as opened:
        opened.live["lungs"][2, 3, 4:6] = 1
        opened.record("lungs", (np.array([2, 2]), np.array([3, 3]), np.array([4, 5])), 0, tool="fill")
    line = covseg("cases", "history", case, "--workspace", workspace).stdout
    assert line.split()[0] == "1" and line.split()[3:] == ["Ada", "fill", "lungs", "3", "2"]
    ((listed,),) = records(covseg("cases", "history", case, "--workspace", workspace, "--json"))
    assert (listed["number"], listed["tool"], listed["voxels"]) == (1, "fill", 2)
    out = tmp_path / "audit.csv"
    assert covseg("cases", "--workspace", workspace, "history", case, "--csv", out).stdout == f"Wrote {out}\n"
    assert len(out.read_text("utf-8-sig").splitlines()) == 2
    assert "has no case" in refused(covseg("cases", "history", "none", "--workspace", workspace))


def test_rescue_brings_strokes_back(
    workspace: Path, case: str, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    with monkeypatch.context() as patch:
        opened = OpenCase(Workspace.open(workspace), case, who="Ada")
        opened.flush()
        patch.setattr(chunks, "_write_file", refuse)
        opened.live["lungs"][2, 3, 4:6] = 1
        opened.record("lungs", (np.array([2, 2]), np.array([3, 3]), np.array([4, 5])), 0, tool="fill")
        path = save(opened, tmp_path)
        assert "already open" in refused(covseg("cases", "rescue", case, path, "--workspace", workspace))
        opened.close(discard=True)
        line = refused(covseg("cases", "rescue", case, path, "--workspace", workspace))
        assert "disk is full" in line
    ((new,),) = records(covseg("cases", "rescue", case, path, "--workspace", workspace, "--json"))
    assert (new["number"], new["who"], new["tool"], new["voxels"]) == (1, "Ada", "fill", 2)
    assert Workspace.open(workspace).case(case).labels("lungs")[2, 3, 4:6].tolist() == [1, 1]
    again = covseg("cases", "--workspace", workspace, "rescue", case, path)
    assert (again.exit_code, again.stdout) == (0, f"{case} has all of {path} already\n")
    assert path.exists()

    (other,) = [
        r["case_id"]
        for r in records(covseg("import", scan, "--workspace", workspace, "--json"))
        if r["event"] == "imported"
    ]
    wrong = refused(covseg("cases", "rescue", other, path, "--workspace", workspace))
    assert "belongs to case" in wrong and case in wrong
    path.write_bytes(b"no strokes")
    assert "holds no strokes" in refused(covseg("cases", "rescue", case, path, "--workspace", workspace))
    missing = refused(covseg("cases", "rescue", case, tmp_path / "no", "--workspace", workspace))
    assert "is missing" in missing


def test_all_networks_are_listed_with_their_sizes() -> None:
    (networks,) = records(covseg("models", "--all", "--json"))
    keys = {"name", "paper", "task", "classes", "parameters", "gmac", "size", "settings"}
    assert all(set(one) == keys for one in networks)
    assert {one["task"] for one in networks} == {"segmentation", "recognition", "manifestations"}
    table = covseg("models", "--all").stdout.splitlines()
    assert len(table) == 1 + len(networks)
    for line, one in zip(table[1:], networks, strict=True):
        assert line.startswith(f"{one['name']} ") and f" {one['parameters'] / 1e6:.3f} M " in line
    (rdunet,) = (one for one in networks if one["name"] == "amer2021-rdunet")
    assert (rdunet["paper"], rdunet["parameters"], rdunet["gmac"]) == ("Amer 2021", 4_557_965, 4.399)


def test_a_model_is_exported_and_checked(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    (told,) = records(covseg("models", "export", model, "--format", "torch", "--out", out, "--json"))
    assert told.pop("max_difference") < 1e-5
    assert told == {"path": str(out), "format": "torch", "outputs": ["lungs", "lesion"], "trained": True}
    assert out.is_file()
    assert "nobody" in refused(covseg("models", "export", "nobody", "--out", out))


def test_a_network_that_nobody_trained_is_exported_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet = NetworkEntry("paper-net", "Net", "Paper", "unet", 0, 0.0, {"features": [2], "bottleneck": 2})
    monkeypatch.setattr("napari_covseg.networks.catalogue.CATALOGUE", (unet,))
    written: list[nn.Module] = []

    def write(network: nn.Module, path: Path, form: str, card: str) -> Exported:
        assert (form, card) == ("onnx", "")
        written.append(network)
        return Exported(path, "onnx", tuple(network.outputs), 1e-5)

    monkeypatch.setattr("napari_covseg.models.export.export_network", write)
    out = tmp_path / "network.onnx"
    told = covseg("models", "export", "paper-net", "--out", out).stdout
    assert f"Wrote {out}, with random weights" in told and "from PyTorch: 1e-05" in told
    (told,) = records(covseg("models", "export", "elbana2020-multilabel", "--out", out, "--json"))
    assert told["outputs"] == ["ground-glass", "consolidation", "pleural effusion"]
    assert [type(network).__name__ for network in written] == ["UNet", "ManifestationNetwork"]


def test_models(model: Path) -> None:
    assert isinstance(records(covseg("models", "--json"))[0], list)
    (card,) = records(covseg("models", "show", model, "--json"))
    assert card["id"] == "tiny" and card["outputs"] == ["lungs", "lesion"]
    assert records(covseg("models", "--json", "show", model)) == [card]
    assert "Random weights" in covseg("models", "show", model).stdout


def test_progress_without_a_terminal_is_plain_lines(scan: Path, model: Path, tmp_path: Path) -> None:
    result = covseg("predict", scan, "--out", tmp_path / "o.nii", "--model", model)
    assert "Labelling: 7 of 7 slices" in result.stderr and "\x1b" not in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_ctrl_c_leaves_nothing_half_done(model: Path, tmp_path: Path) -> None:
    scan = tmp_path / "long.nii"
    voxels = np.tile(tiny_scan(10).voxels, (500, 1, 1)).transpose(2, 1, 0)
    nib.save(nib.Nifti1Image(voxels, np.diag([1.5, 1.5, 1, 1])), scan)
    command = [sys.executable, "-m", "napari_covseg.cli", "predict", scan, "--model", model, "--json"]
    # a shell's job in the background ignores Ctrl-C, and so would its children
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen(
        [*command, "--out", tmp_path / "out.nii.gz"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    assert child.stdout is not None
    for line in child.stdout:
        if json.loads(line).get("done"):
            break
    child.send_signal(signal.SIGINT)
    out, errors = child.communicate(timeout=600)
    assert child.returncode == 130, errors
    assert json.loads(out.splitlines()[-1]) == {"event": "cancelled"}
    assert errors.splitlines()[-1] == "Cancelled."
    assert [p.name for p in tmp_path.iterdir()] == ["long.nii"]


def test_ctrl_c_while_an_event_is_shown_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    def job() -> Generator[Event, None, None]:
        try:
            yield Progress(1, 5, "slices")
            ended.append("whole")
        finally:
            ended.append("closed")

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    output = Output(typer.Context(typer.main.get_command(app)), as_json=True)
    monkeypatch.setattr(Output, "record", strike)
    try:
        output.follow(job(), "Labelling")
    except KeyboardInterrupt:  # its traceback holds the job: only being closed ends it
        assert ended == ["closed"]
    else:
        pytest.fail("Ctrl-C was lost")


def test_train_writes_a_model(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for patient in ("a", "b"):
        for folder in ("ct", "lungs", "infection"):
            (tmp_path / "data" / patient / folder).mkdir(parents=True)
            for z in range(2):
                values = random.integers(0, 256, (256, 256)) if folder == "ct" else np.eye(256) * 255
                Image.fromarray(values.astype(np.uint8)).save(
                    tmp_path / "data" / patient / folder / f"{z}.png"
                )
    out = tmp_path / "new.safetensors"
    result = covseg(
        "train",
        tmp_path / "data",
        "--out",
        out,
        "--steps",
        "1",
        "--batch",
        "1",
        "--validation",
        "b",
        "--json",
    )
    assert result.exit_code == 0, result.output
    told = records(result)
    assert {"training_progress", "written"} <= {r["event"] for r in told}
    (card,) = records(covseg("models", "show", out, "--json"))
    assert card["split"] == {"training": ["a"], "validation": ["b"], "test": []}
