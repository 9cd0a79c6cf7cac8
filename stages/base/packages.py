"""The packages that can change a figure: pyproject.toml pins them, and dvc.yaml makes the stages that use them depend on it."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from stages.base.console import UserError


def check(*groups: str) -> None:
    """Raise UserError unless what is installed of these dependency groups is what pyproject.toml pins, and so dvc.lock says."""
    try:
        pinned = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
        requirements = [requirement for group in groups for requirement in pinned[group]]
    except (FileNotFoundError, KeyError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"pyproject.toml lacks a dependency group ({error}); `git checkout pyproject.toml`") from None
    for requirement in requirements:
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
