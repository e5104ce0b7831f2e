"""Parts of scripts/fuzz.py: the corpus, mutations of bytes and of structure, coverage, the process that opens."""
