"""Open a finished result and print what its depth means.

python examples/read_result.py data/output/clip
"""

from __future__ import annotations

import sys

import numpy as np

import stf_depth

result = stf_depth.open_result(sys.argv[1])
print(f"{result.name}: {len(result)} frames of {result.representation}, known up to: {result.ambiguity}")
for number, shot in enumerate(result.shots):
    middle = (shot.start + shot.stop) // 2
    depth, valid = np.asarray(result.depth[middle]), np.asarray(result.valid[middle])
    camera = result.cameras[number].kind
    median = np.median(depth[valid])
    print(f"shot {number}: frames {shot.start} to {shot.stop - 1}, camera {camera}, median {median:.3f}")
