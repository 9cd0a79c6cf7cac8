"""The packages that can change a figure: pyproject.toml pins them, and dvc.yaml makes the stages that use them depend on it."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from stages.base.console import UserError

GROUPS = ("numerics", "training", "search")  # dependency groups of pyproject.toml


def check() -> None:
    """Raise UserError unless the installed versions are the pinned ones, which dvc.lock will say made the figures."""
    try:
        pinned = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    except (FileNotFoundError, KeyError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"pyproject.toml has no dependency groups ({error}); `git checkout pyproject.toml`") from None
    for requirement in (requirement for group in GROUPS for requirement in pinned[group]):
        name, _, expected = requirement.partition("==")
        name = name.partition("[")[0]
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not installed"
        if found != expected:
            raise UserError(
                f"{name} is {found}, but pyproject.toml pins {expected}; `pip install -r requirements.txt`, or change the pin"
            )
