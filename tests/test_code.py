"""Which files decide what a training comes to, in a small repository of its own."""

import pytest

from stages.base.console import UserError
from stages.compute import code

FILES = {
    "dvc.yaml": "stages: {tune: {deps: [stages/training, stages/compute, stages/base]}, prepare: {deps: []}}",
    "stages/__init__.py": "",
    "stages/base/__init__.py": "",
    "stages/base/gain.py": "GAIN = 1",
    "stages/base/other.py": "no Python, and nobody imports it",
    "stages/training/__init__.py": "",
    "stages/compute/__init__.py": "",
    "stages/compute/worker.py": "def later():\n    from stages.base import gain",
    "stages/training/table.csv": "what a module reads",
    "stages/training/model.py~": "what an editor leaves",
    "stages/training/.model.py": "the same",
    "stages/training/__pycache__/model.pyc": "what Python leaves",
}
DECIDE = {*(name for name in FILES if name.startswith("stages/") and "model" not in name)}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A folder with `FILES`, which this process takes for the repository."""
    monkeypatch.setattr(code, "ROOT", tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_what_decides_a_training_are_its_folder_and_what_that_imports(repository):
    files = {name: FILES[name].encode() for name in DECIDE - {"stages/base/other.py"}}
    assert code.training_code() == files
    assert code.digest(files) == code.digest(dict(sorted(files.items(), reverse=True)))
    assert code.digest(files) != code.digest({**files, "stages/base/gain.py": b"GAIN = 2"})


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        (
            "dvc.yaml",
            "stages: {tune: {deps: [stages/training, stages/compute, stages/base/gain]}}",
            r"stages/base/\w+\.py decides what a training comes to, but tune in dvc\.yaml does not depend .+",
        ),
        ("stages/training/table.py", "def (", r"stages/training/table\.py is not valid Python: .+, line 1"),
        (
            "stages/compute/worker.py",
            "from other import gain",
            r"stages\.compute\.worker imports from a folder without __init__\.py; add an empty one",
        ),
    ],
)
def test_a_repository_from_which_nothing_can_be_trained_is_one_line(repository, file, content, line):
    (repository / "other").mkdir()
    (repository / "other/gain.py").touch()
    (repository / file).write_text(content)
    with pytest.raises(UserError, match=f"^{line}$"):
        code.training_code()


def test_another_threads_imports_do_not_end_the_look_at_imports(repository, monkeypatch):
    """Python's `modulefinder` clears caches in a loop over a table that each import may add to."""
    interrupted = []

    def import_hook(finder, *arguments, **options):
        if not interrupted:
            interrupted.append(arguments)
            raise RuntimeError("dictionary changed size during iteration")
        return found(finder, *arguments, **options)

    found = code.ModuleFinder.import_hook
    monkeypatch.setattr(code.ModuleFinder, "import_hook", import_hook)
    assert "stages/base/gain.py" in code.training_code()
    assert interrupted
