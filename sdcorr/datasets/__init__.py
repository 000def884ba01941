"""Annotated pair sets, one file each; every file ends with ``PLUGIN``, its config class."""
