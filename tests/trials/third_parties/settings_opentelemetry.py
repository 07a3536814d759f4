from site_settings import *
from site_settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "traced"]
RQ = {"WORKER_CLASS": "traced.workers.TracedWorker"}
