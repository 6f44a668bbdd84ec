"""What tests share: small trainings, a stand-in for W&B's server, and scripts that run as processes of their own."""

import os
import signal
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


def run_module(name, *arguments, timeout=None):
    """Run a module of the tests as a process, and return it completed; at the limit all its processes are killed."""
    command = module_command(name, *arguments)
    process = subprocess.Popen(
        command, env=module_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
