"""``python -m vlmsel_auto`` is ``vlmsel-auto``."""

from vlmsel_auto.cli.app import main

if __name__ == "__main__":
    main()
