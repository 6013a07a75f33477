"""A run as data: configuration, recipe, presets."""
