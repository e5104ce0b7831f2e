"""What an index of shards says: python shards.py INDEX."""

import json
import sys
from collections import Counter
from pathlib import Path

index = json.loads(Path(sys.argv[1]).read_text())
for shard, tensors in sorted(Counter(index["weight_map"].values()).items()):
    print(f"{shard}: {tensors} tensors")
print(f"{index['metadata']['total_size']} bytes of tensors")
