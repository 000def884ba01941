"""``python -m sdcorr`` is the command ``sdcorr``."""

from sdcorr.cli import main

if __name__ == "__main__":
    main()
