"""Which files determine the result of a training, in a small repository made for these tests."""

import pytest

from stages.base.console import UserError
from stages.compute import code

FILES = {
    "dvc.yaml": "stages: {tune: {deps: [stages/training, stages/compute, stages/base]}, prepare: {deps: []}}",
    "stages/__init__.py": "",
    "stages/base/__init__.py": "",
    "stages/base/gain.py": "GAIN = 1",
    "stages/base/other.py": "not Python, and not imported",
    "stages/training/__init__.py": "",
    "stages/compute/__init__.py": "",
    "stages/compute/worker.py": "def later():\n    from stages.base import gain",
    "stages/training/table.csv": "data that a module reads",
    "stages/training/model.py~": "an editor's backup",
    "stages/training/.model.py": "an editor's hidden file",
    "stages/training/__pycache__/model.pyc": "bytecode",
}
DECIDE = {*(name for name in FILES if name.startswith("stages/") and "model" not in name)}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A folder with `FILES`, which stands in for the repository."""
    monkeypatch.setattr(code, "ROOT", tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_the_code_of_a_training_is_its_folder_and_what_the_worker_imports(repository):
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
            r"stages/base/\w+\.py determines the result of a training, but tune in dvc\.yaml does not .+",
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


def test_imports_in_another_thread_do_not_break_the_search_for_files(repository, monkeypatch):
    """Python's `modulefinder` iterates over a cache to which an import in another thread may add."""
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
