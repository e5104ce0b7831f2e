"""The registry: YAML in, frozen objects out, bound to one layer's config and shapes when needed."""
