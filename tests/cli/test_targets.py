"""Every ``_target_`` that we ship names a face, and Hydra finds it there, although faces load their names lazily."""

import re
import subprocess
import sys

import pytest
from hydra._internal.utils import _locate

from lis_lightning.cli import resource_dir
from lis_lightning.cli.config_check import _parameters, _resolve

CONF = resource_dir("conf")
TARGETS = sorted(
    {
        target
        for path in [*CONF.rglob("*.yaml"), *resource_dir("recipes").rglob("*.*")]
        if path.suffix in {".yaml", ".py", ".md"}
        for target in re.findall(r"_target_: (lis_lightning\.[\w.]+)", path.read_text())
    }
)


def face_of(target):
    """The module and the name in it that a target stands for; class methods stand for their class."""
    parts = target.split(".")
    index = next(number for number, part in enumerate(parts) if part[0].isupper() or part.startswith("load_"))
    return ".".join(parts[:index]), parts[index]


def test_there_are_targets_of_all_rooms():
    assert len(TARGETS) >= 20


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_is_a_name_of_a_face(target):
    module, name = face_of(target)
    assert name in sys.modules.get(module, __import__(module, fromlist=[name])).__all__


@pytest.mark.parametrize("target", TARGETS)
def test_the_check_of_settings_finds_its_parameters(target):
    assert _resolve(target, "node") == _locate(target)
    # The world and Trackio refuse unknown parameters themselves.
    takes_anything = target.endswith(("SweepReport", "TrackioLogger", "load_world"))
    assert bool(_parameters(_locate(target))) != takes_anything


def test_hydra_finds_a_target_in_a_process_that_imported_nothing_else():
    code = (
        "from hydra._internal.utils import _locate; import sys; "
        "print(_locate('lis_lightning.align.models.FeatureEncoder.from_items').__qualname__, "
        "'lis_lightning.align.models.vlm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["FeatureEncoder.from_items", "False"]
