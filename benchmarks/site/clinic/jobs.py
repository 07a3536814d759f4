"""A job that does nothing, in a module that imports nothing."""


def nothing():
    """Does nothing."""
