"""What a run is told of its snapshots, before anything is loaded."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir

from lis_lightning.align.training import Monitoring
from lis_lightning.cli import resource_dir
from lis_lightning.cli.align import _monitoring
from lis_lightning.cli.config_check import check_config
from lis_lightning.errors import ConfigError
from lis_lightning.monitor.on_demand import OnFile
from lis_lightning.monitor.schedule import LogSpaced

LOG = "{_target_: lis_lightning.monitor.LogSpaced, first: 5}"


def told(*overrides):
    with initialize_config_dir(str(resource_dir("conf")), version_base="1.3"):
        config = compose("align", overrides=list(overrides))
    check_config(config, "align")
    return _monitoring(config)


def test_the_defaults_of_the_option_are_those_of_the_class():
    assert told() == Monitoring()


@pytest.mark.parametrize(
    ("given", "schedule"),
    [
        (LOG, LogSpaced(first=5)),
        (f"[{LOG}]", [LogSpaced(first=5)]),
        (f"[{LOG},{{_target_: lis_lightning.monitor.OnFile}}]", [LogSpaced(first=5), OnFile()]),
    ],
)
def test_schedules_are_named_by_class(given, schedule):
    known = told(f"lis.schedule={given}", "lis.every_n_steps=null", "lis.save=last-2", "lis.background_steps=20")
    assert known.schedule == schedule
    assert known.options() == {
        "every_n_steps": None, "schedule": schedule, "background_steps": 20, "save": "last-2", "batch_size": 128,
        "log_more": False, "reads": (), "watch": (),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("lis.schedule=[20]", r"`schedule` must be a schedule .* got 20"),
        ("lis.every_n_steps=0", "`every_n_steps` must be at least 1 optimizer step, got 0"),
        ("lis.save=bets", "'bets'"),
        ("lis.background_steps=0", "`background_steps` must be at least 1 optimizer step or None, got 0"),
        (
            "lis.schedule={_target_: lis_lightning.monitor.LogSpaced, per_decad: 5}",
            "Did you mean 'per_decade'",
        ),
    ],
)
def test_bad_words_are_refused_before_anything_is_loaded(given, message):
    with pytest.raises(ConfigError, match=message):
        told(given)
