"""Tensor stores: lazy names, dtypes and shapes, bytes on demand; one module a format."""
