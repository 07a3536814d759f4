"""The same site with immortal definitions."""

from clinic.settings import *  # noqa: F403 - as Django projects do it

RQ_POOL_IMMORTAL = True
