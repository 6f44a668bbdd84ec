"""The faces of the rooms: the public names are frozen, load on first use, and pull in nothing heavy."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import lis_lightning

ROOMS = sorted(
    ["lis_lightning"]
    + [module.name for module in pkgutil.walk_packages(lis_lightning.__path__, "lis_lightning.") if module.ispkg]
)


def test_the_top_level_is_frozen():
    assert lis_lightning.__all__ == [
        "Completed",
        "Encode",
        "IdEmbeddings",
        "LISEarlyStopping",
        "LISMonitor",
        "LISResult",
        "LeakageImpactScore",
        "PairTable",
        "PreferenceSplit",
        "read_run",
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_of_a_face_is_there_and_documented(room):
    face = importlib.import_module(room)
    assert face.__doc__
    assert sorted(face.__all__) == face.__all__
    for name in face.__all__:
        assert name in dir(face)
        assert getattr(face, name).__doc__, f"{room}.{name}"


@pytest.mark.parametrize("room", ROOMS)
def test_every_function_and_class_of_a_face_has_an_example(room):
    face = importlib.import_module(room)
    public = {name: getattr(face, name) for name in face.__all__}
    missing = [
        name
        for name, value in public.items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and ">>>" not in inspect.getdoc(value)
    ]
    assert missing == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_name_of_a_face_is_hidden_by_a_module(room):
    face = importlib.import_module(room)
    modules = {module.name for module in pkgutil.iter_modules(face.__path__)}
    assert not modules & set(face.__all__)


def test_importing_pulls_in_nothing_heavy_of_ours():
    code = (
        "import pytorch_lightning, sys; before = set(sys.modules); import lis_lightning; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new & {'wandb', 'transformers', 'plotly', 'PIL', 'hydra', 'peft'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Metric"):
        _ = lis_lightning.Metric


def test_the_report_needs_neither_torch_nor_lightning():
    code = (
        "import sys, lis_lightning.cli.report; "
        "print(sorted(set(sys.modules) & {'torch', 'pytorch_lightning', 'wandb', 'plotly', 'hydra'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
