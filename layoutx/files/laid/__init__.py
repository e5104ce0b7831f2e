"""Outputs laid out before their numbers are known: where each tensor will lie in the file that is to be."""
