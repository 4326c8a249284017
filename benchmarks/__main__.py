"""Runs every benchmark and prints its table."""

from benchmarks import coating

if __name__ == "__main__":
    coating.main()
