"""Benchmarks are run by ``python tests/benchmarks``, never imported by pytest."""

collect_ignore_glob = ["*.py"]
