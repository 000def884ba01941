"""The command line with every recipe shrunk for tiny weights: ``python -m tests.small_cli``."""

from sdcorr import recipes
from sdcorr.cli import main
from tests.tiny import shrink

if __name__ == "__main__":  # an import, as by the collection of tests, changes nothing
    recipes.RECIPES = {name: shrink(recipe) for name, recipe in recipes.RECIPES.items()}
    main()
