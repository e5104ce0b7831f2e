"""Terminal texts and tables: the registry, a report, an inspected file, an error."""
