"""From an image file to model input."""
