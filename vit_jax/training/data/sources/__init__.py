"""One file for each way that data sets are stored."""
