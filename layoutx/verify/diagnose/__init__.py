"""Which known mistake explains a difference: each is an edit of weights, config or data that is tried and measured."""
