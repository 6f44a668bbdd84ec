"""What tests share: small trainings, a stand-in for W&B's server, and scripts that run as processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def module_command(name, *arguments):
    """Return the command that runs a module of the tests."""
    return [sys.executable, "-m", f"tests.{name}", *map(str, arguments)]


def module_environment(**variables):
    """Return the environment in which `module_command` finds the tests."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)} | variables


def run_module(name, *arguments, **options):
    """Run a module of the tests as a process, and return it completed."""
    command = module_command(name, *arguments)
    return subprocess.run(command, env=module_environment(), capture_output=True, text=True, check=False, **options)
