"""ddtrace as its documentation has it for a program of one's own, in the settings."""

import ddtrace

from site_settings import *

ddtrace.patch(rq=True, redis=True)
