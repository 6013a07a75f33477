"""From an image file to a model's input."""
