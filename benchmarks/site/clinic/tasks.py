"""A job that does nothing either, in a module that imports what many sites' jobs import."""

import numpy  # noqa: F401
import pandas  # noqa: F401
import requests  # noqa: F401
from PIL import Image  # noqa: F401


def nothing():
    """Does nothing."""
