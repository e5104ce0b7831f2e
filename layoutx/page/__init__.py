"""One self-contained HTML page of a result: no network, no build step, nothing that a model's names could inject."""
