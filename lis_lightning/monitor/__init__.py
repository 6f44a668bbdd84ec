"""Inside a training: when to take a snapshot, how to encode undisturbed, whom to tell."""
