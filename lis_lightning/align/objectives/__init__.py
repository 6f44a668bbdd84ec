"""What a representation is trained for: examples of the alignment window, and a loss on them."""
