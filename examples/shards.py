"""What an index of shards says: python shards.py INDEX."""

import json
import sys
from collections import Counter

index = json.load(open(sys.argv[1]))
for shard, tensors in sorted(Counter(index["weight_map"].values()).items()):
    print(f"{shard}: {tensors} tensors")
print(f"{index['metadata']['total_size']} bytes of tensors")
