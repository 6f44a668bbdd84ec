"""The configuration of the command line; found at run time, never imported."""
