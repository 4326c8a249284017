"""Runs every benchmark and prints its tables; `--fresh` forgets the rows of an earlier run."""

import sys

from benchmarks import coating, degenerate, forests, gates, large, networks, optimizers, surrogates

if __name__ == "__main__":
    for benchmark in (degenerate, gates, coating):
        benchmark.main()
        print()
    for long in (networks, forests, large, optimizers):
        long.main(sys.argv[1:])
        print()
    surrogates.main(sys.argv[1:])
