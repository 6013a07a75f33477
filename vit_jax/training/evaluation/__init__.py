"""Evaluation: accuracy, calibration, features, charts."""
