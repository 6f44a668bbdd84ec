"""Items, events and pairs that a fine-tuning run learns from."""
