"""The exact relation between two files of one model, found from the numbers alone."""
