"""An interaction log becomes a validation preference split."""
