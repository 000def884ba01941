"""The command line with every recipe shrunk for tiny weights: ``python -m tests.small_cli``."""

from sdcorr import recipes
from sdcorr.cli import main
from tests.tiny import shrink

recipes.RECIPES = {name: shrink(recipe) for name, recipe in recipes.RECIPES.items()}

if __name__ == "__main__":
    main()
