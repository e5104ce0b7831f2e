"""Mistakes planted in whole models: what `layoutx diagnose` has to find, to name and to repair."""
