"""Encoders: from an item's features, or its image and text, to the representation that is trained and scored."""
