"""Autoscaling: loads the counts and measures the queues, in a process of its own.

Rule of the package: what it needs to know of the manager's workers, it asks by `ipc`. Door:
`process`.
"""
