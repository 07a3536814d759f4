"""Jobs in a module that imports what many sites' jobs import."""

import io

import numpy
import pandas
import requests
from PIL import Image


def thumbnail():
    """Does very little with each of the libraries."""
    picture = Image.fromarray(numpy.zeros((16, 16), dtype=numpy.uint8))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    frame = pandas.DataFrame({"size": [stream.tell()]})
    request = requests.Request("GET", "https://example.org/").prepare()
    return f"{request.method} {int(frame['size'].sum())}"
