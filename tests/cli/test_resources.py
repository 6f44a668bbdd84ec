import pytest

from lis_lightning.cli import resource_dir


def test_a_missing_folder_names_both_places():
    with pytest.raises(FileNotFoundError, match=r"`absent/` was found in neither .*absent nor .*absent"):
        resource_dir("absent")
