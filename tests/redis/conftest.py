"""The test project's settings, for what asks Django."""

from __future__ import annotations

import django

django.setup()
