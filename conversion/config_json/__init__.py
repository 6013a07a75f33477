"""The config.json beside weights, in our terms: Hugging Face's and timm's."""
