"""Results to Lightning loggers and W&B."""
