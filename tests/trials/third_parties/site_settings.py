"""Settings of the site on which third parties are tried; each trial adds to them."""

import os
from pathlib import Path

SECRET_KEY = "of no value: this project holds nothing"
USE_TZ = True
ALLOWED_HOSTS = ["testserver"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django_rq",
    "django_rq_pool",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "site_urls"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(os.environ["TRIAL_FOLDER"]) / "site.sqlite3",
    }
}
REDIS = {"URL": os.environ["REDIS_URL"]}
RQ_QUEUES = {"default": REDIS, "low": REDIS}
RQ_POOL = {"default,low": 2}

LISTENER = os.environ.get("TRIAL_LISTENER", "")
"""The address of the trial's own HTTP server, which stands for the third party's."""
