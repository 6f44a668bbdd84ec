"""Benchmarks are run by ``python -m tests.benchmarks``, never imported by pytest."""

collect_ignore_glob = ["*.py"]
