"""Two recordings compared layer by layer, axes agreeing by name."""
