"""Autoscaling: loads the counts and measures the queues, in a process of its own.

Rule of the package: it asks the manager about its workers through `ipc`. Other packages import its
module `process` only.
"""
