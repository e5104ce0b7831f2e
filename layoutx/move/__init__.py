"""The numbers on their way from one file to another: pieces filled, converted, summed and written in place."""
