"""Settings of the test project; the environment says where its servers are."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "of no value: this project holds nothing"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django_rq", "django_rq_pool", "shop"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_DATABASE", BASE_DIR / "shop.sqlite3"),
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    }
}
if "SHOP_POSTGRES" in os.environ:  # the folder of the server's socket
    DATABASES["default"] = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["SHOP_POSTGRES"],
        "NAME": "postgres",
        "USER": "postgres",
        "CONN_MAX_AGE": int(os.environ.get("SHOP_CONN_MAX_AGE", "0")),
        "OPTIONS": {"pool": True} if "SHOP_POSTGRES_POOL" in os.environ else {},
    }
if "SHOP_CACHE" in os.environ:
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": os.environ["SHOP_CACHE"],
        }
    }

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
OTHER_REDIS_URL = os.environ.get("OTHER_REDIS_URL", "redis://localhost:6380/0")
REDIS = {"URL": REDIS_URL}
if "REDIS_SENTINELS" in os.environ:  # host:port, separated by commas
    addresses = [address.rpartition(":") for address in os.environ["REDIS_SENTINELS"].split(",")]
    REDIS = {
        "SENTINELS": [(host, int(port)) for host, _, port in addresses],
        "MASTER_NAME": "shop",
        "DB": 0,
    }
elif "REDIS_ADDRESS" in os.environ:  # host:port; redis-py then repeats what fails, as from no URL
    host, _, port = os.environ["REDIS_ADDRESS"].rpartition(":")
    REDIS = {"HOST": host, "PORT": int(port), "DB": 0}
RQ_QUEUES = {
    "high": REDIS,
    "default": REDIS,
    "low": {**REDIS, "DEFAULT_TIMEOUT": 600},
    "foo": REDIS,
    "bar": REDIS,
    "baz": REDIS,
    "elsewhere": {"URL": OTHER_REDIS_URL},
}
