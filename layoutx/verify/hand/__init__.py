"""One output element of a layer by hand: the formula with its sizes, and every number that goes into it."""
