from site_settings import *
from site_settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "django_prometheus"]
