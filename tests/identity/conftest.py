"""The matrix is run by ``python tests/identity``; its tests stand in tests/test_identity.py."""

collect_ignore_glob = ["*.py"]
