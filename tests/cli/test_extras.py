"""What a command needs beyond the core is checked before it starts."""

from importlib.metadata import PackageNotFoundError, version

import pytest

from lis_lightning.cli import align, encode, extras
from lis_lightning.errors import ConfigError


@pytest.fixture
def installed(monkeypatch):
    """Replaces the installed versions of some packages; None stands for a package that is not installed."""

    def pretend(**versions):
        def known(name):
            if versions.get(name, "") is None:
                raise PackageNotFoundError(name)
            return versions.get(name) or version(name)

        monkeypatch.setattr(extras, "version", known)

    return pretend


def test_missing_packages_and_other_versions_are_named_with_the_command_that_installs_them(installed):
    installed(peft=None, transformers="4.57.1")
    with pytest.raises(ConfigError) as raised:
        extras.require_extra("align", "lis-align")
    assert str(raised.value).startswith("lis-align needs the extra [align]: ")
    assert "peft is not installed" in str(raised.value)
    assert "transformers 4.57.1 is installed, and <6,>=5.23 is needed" in str(raised.value)
    assert str(raised.value).endswith("Install it: pip install 'lis-lightning[align]'")


def test_lis_align_says_so_before_it_writes_anything(installed, tmp_path, monkeypatch, capsys):
    installed(transformers=None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["lis-align", "hydra.run.dir=.", "hydra.output_subdir=null"])
    with pytest.raises(SystemExit, match="1"):
        align.main()
    assert "lis-align needs the extra [align]: transformers is not installed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_so_does_lis_encode(installed, tmp_path, capsys):
    installed(transformers=None)
    with pytest.raises(SystemExit, match="1"):
        encode.main(["best.ckpt", "items.parquet", "-o", str(tmp_path / "vectors.parquet")])
    assert "lis-encode needs the extra [align]: transformers is not installed" in capsys.readouterr().err
