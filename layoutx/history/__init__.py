"""How the weights of a model move while it is trained: recorded into one file, read back as named arrays."""

from layoutx.history.frames import is_history as is_history
from layoutx.history.writer import History as History
