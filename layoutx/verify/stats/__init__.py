"""What weights alone show when something is wrong: numbers of each tensor, norms of each layer, findings."""
