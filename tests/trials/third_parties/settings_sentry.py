"""Sentry as its documentation has it, in the settings, so that the manager starts it."""

import sentry_sdk
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.integrations.rq import RqIntegration

from site_settings import *
from site_settings import LISTENER

sentry_sdk.init(
    dsn=LISTENER.replace("http://", "http://key@") + "/1",
    integrations=[DjangoIntegration(), RqIntegration()],
    traces_sample_rate=1.0,
)
