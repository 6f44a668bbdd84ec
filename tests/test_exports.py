import subprocess
import sys

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
