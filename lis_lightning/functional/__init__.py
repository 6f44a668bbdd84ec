"""Pure functions of arrays and tensors: the maths, without a Trainer, a log or a file."""
