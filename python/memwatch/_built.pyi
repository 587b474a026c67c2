"""What setup.py writes when the package is built."""

MISSING: dict[str, str]
