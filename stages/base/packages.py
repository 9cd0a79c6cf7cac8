"""Check the versions of the packages that can change a result against those pinned in pyproject.toml."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from stages.base.console import UserError


def check(*groups: str) -> None:
    """Raise UserError unless all packages of these dependency groups have the versions in pyproject.toml.

    dvc.lock records these versions too.
    """
    try:
        pinned = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
        requirements = [requirement for group in groups for requirement in pinned[group]]
    except (FileNotFoundError, KeyError, tomllib.TOMLDecodeError) as error:
        problem = f"lacks a dependency group ({error})"
        raise UserError(f"pyproject.toml {problem}; `git checkout pyproject.toml`") from None
    for requirement in requirements:
        package, _, expected = requirement.partition("==")
        name = package.partition("[")[0]
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "not installed"
        if installed != expected:
            advice = "`pip install -r requirements.txt`, or change the pin"
            raise UserError(f"{name} is {installed}, but pyproject.toml pins {expected}; {advice}")
