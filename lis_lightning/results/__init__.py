"""What scores say, over a run and across runs."""
