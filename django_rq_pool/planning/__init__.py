"""Planning: what the manager shall do next.

Rule of the package: pure. Everything that matters comes in as an argument, the time included; no
Django, RQ, Redis, system call or clock. Every room is a door.
"""
