"""Every form of the registry can be probed: bound with prime sizes, its reference computes something that tells."""

from __future__ import annotations

import pytest

from layoutx.errors import LayoutxError
from layoutx.lang.sizes import extent
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.configs import structural
from layoutx.spec.registry import registry

SPECS = registry()
