"""A fine-tuning run from data and encoder to its report."""
