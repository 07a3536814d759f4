"""Startup: from a configuration to a running manager.

Rule of the package: the only one that knows all the others. Door: `run`.
"""
