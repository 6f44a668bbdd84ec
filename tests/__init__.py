"""Tests, in the rooms of the package; what they share is in `_helpers`."""
