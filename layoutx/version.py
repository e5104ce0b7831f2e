"""The version of layoutx, said once: the package, its files' certificates and the wheel read it here."""

VERSION = "0.1.0"
