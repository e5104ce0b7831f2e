"""The version of layoutx, said once: the package, its files' certificates and the wheel read it here."""

VERSION = "0.1.0"


def public(version: str) -> str:
    """A version without the label of its build: `2.13.0+cpu` is `2.13.0` to whoever reads a report or a certificate."""
    return version.partition("+")[0]
