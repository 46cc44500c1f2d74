"""``python -m eventbus.cli``: the command line where the script isn't on PATH."""

from eventbus.cli import main

if __name__ == "__main__":
    main()
