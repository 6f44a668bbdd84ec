import subprocess
import sys

import pytest

import lis_lightning


def test_public_names_are_frozen():
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
    ]
    assert sorted(lis_lightning.__all__) == lis_lightning.__all__
    for name in lis_lightning.__all__:
        assert getattr(lis_lightning, name).__doc__


def test_importing_pulls_in_nothing_heavy_of_ours():
    code = (
        "import pytorch_lightning, sys; before = set(sys.modules); import lis_lightning; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new & {'wandb', 'transformers', 'plotly', 'PIL', 'hydra', 'peft'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_found_and_no_other():
    assert set(lis_lightning.__all__) == set(lis_lightning._HOME) <= set(dir(lis_lightning))
    with pytest.raises(AttributeError, match="module 'lis_lightning' has no attribute 'Metric'"):
        _ = lis_lightning.Metric


def test_the_report_needs_neither_torch_nor_lightning():
    code = (
        "import sys, lis_lightning.cli.report; "
        "print(sorted(set(sys.modules) & {'torch', 'pytorch_lightning', 'wandb', 'plotly', 'hydra'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
