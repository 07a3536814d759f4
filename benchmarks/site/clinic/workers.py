"""A worker class whose module imports what the jobs need.

RQ's pool imports it before it forks, so that its workers and their horses find all of it imported.
"""

from rq import Worker

import clinic.tasks  # noqa: F401


class Preloading(Worker):
    """RQ's own."""
