"""The script is run by ``python -m tests.gpu``; the test that runs it small on a CPU is in test_gpu_script.py."""

collect_ignore_glob = ["[!t]*.py", "__main__.py"]
