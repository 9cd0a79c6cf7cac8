"""Git and DVC as the commands that a user types."""

import subprocess
import sys
from contextlib import suppress

from stages.base.console import UserError


def dvc(*arguments: str) -> str:
    """Return what the `dvc` of this Python prints; UserError if it fails."""
    return run(sys.executable, "-m", "dvc", *arguments)


def run(*command: str) -> str:
    """Return what `command` prints; UserError if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"`{' '.join(command[-4:])}` failed: {' '.join(done.stderr.split())[-300:]}")
    return done.stdout.strip()


def asked(*command: str) -> str:
    """Return what `command` prints, nothing if it fails."""
    with suppress(UserError):
        return run(*command)
    return ""
