"""Planning: decides what the manager shall do next.

Rule of the package: pure functions and records. Everything they need is an argument, even the
time: no Django, RQ, Redis, system call or clock. Other packages may import any of its modules.
"""
