"""Which layer is whose counterpart: evidence for every pair, weighed in one assignment over the whole model."""
