"""Runs every benchmark and prints its tables; `--fresh` forgets the rows of an earlier run."""

import sys

from benchmarks import coating, degenerate, gates, optimizers, surrogates

if __name__ == "__main__":
    for benchmark in (degenerate, gates, coating):
        benchmark.main()
        print()
    optimizers.main(sys.argv[1:])
    surrogates.main(sys.argv[1:])
