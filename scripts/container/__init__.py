"""The parts of scripts/container_check.py."""


class CheckError(Exception):
    """What failed, in a sentence for the person who ran the check."""
