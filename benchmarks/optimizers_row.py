"""One row of `benchmarks.optimizers`, in a process of its own: prints it as JSON."""

import json
import sys

from benchmarks.optimizers import measure

if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
