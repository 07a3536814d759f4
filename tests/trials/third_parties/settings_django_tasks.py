from site_settings import *
from site_settings import INSTALLED_APPS, REDIS

INSTALLED_APPS = [*INSTALLED_APPS, "django_tasks", "django_tasks_rq"]
TASKS = {"default": {"BACKEND": "django_tasks_rq.RQBackend", "QUEUES": ["tasks"]}}
RQ_QUEUES = {"default": REDIS, "tasks": REDIS}  # it looks up results in "default"
RQ_POOL = {"tasks": {"workers": 1, "job_class": "django_tasks_rq.Job"}}
