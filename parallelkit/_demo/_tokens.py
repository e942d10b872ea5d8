"""The CPU half: a separate script, run as a user would run it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from parallelkit._demo._claims import Claims

SCRIPT = Path(__file__).with_name("count_tokens.py")


def show_tokens(claims: Claims, root: str = sysconfig.get_path("stdlib")) -> None:
    """Count the tokens of the Python files below ``root``, by default the standard library."""
    print(f"\nCPU: the tokens of every Python file in {root}, in processes\n")
    print(f"  {SCRIPT}: a script without a main guard\n", flush=True)
    code = subprocess.run([sys.executable, SCRIPT, root], env=_environment(), check=False).returncode
    if code:
        claims.claim("the script counted every file but two", False)


def _environment() -> dict[str, str]:
    """Return the environment with this package first on the script's path."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
