"""Config: what the pool shall be, from settings, files, loaders and the command line.

Rule of the package: the one place that reads settings. What cannot be used is answered by a
sentence that says what would be right. Every room is a door.
"""
