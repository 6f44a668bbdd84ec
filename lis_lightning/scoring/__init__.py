"""A split and item vectors become a result."""
