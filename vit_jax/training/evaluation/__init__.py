"""What came of a run: accuracy, calibration, features, charts."""
