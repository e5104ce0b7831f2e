"""Parts of scripts/bench.py: made models, contenders, measuring, comparing, floors, figures, the page."""
