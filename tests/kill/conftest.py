"""The kill test is run by ``python -m tests.kill``, never imported by pytest."""

collect_ignore_glob = ["*.py"]
