"""What proves a conversion: role arrays, a NumPy reference, the real frameworks, probes and witnesses."""
