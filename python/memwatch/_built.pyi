# Written by setup.py when the package is built: what could not be, and why.
MISSING: dict[str, str]
