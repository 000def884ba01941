"""Feature extractors, one file each; every file ends with ``PLUGIN``, its config class."""
