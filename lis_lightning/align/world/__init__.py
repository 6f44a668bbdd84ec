"""The generated world, whose truth is known."""
