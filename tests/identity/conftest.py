"""The matrix is run by ``python -m tests.identity``; its tests stand in tests/monitor/test_identity.py."""

collect_ignore_glob = ["*.py"]
