"""The questions that `lx.explain` answers, each from the registry and the engine."""
