"""Live models run with everything recorded, one module a framework."""

from layoutx.verify.running.opened import Runner, opened

__all__ = ["Runner", "opened"]
