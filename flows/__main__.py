"""`python -m flows` is `surrogate`."""

from flows.cli import main

if __name__ == "__main__":
    main()
