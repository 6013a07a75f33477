"""One file for each storage format of data sets."""
