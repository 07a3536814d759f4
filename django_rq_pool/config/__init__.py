"""Config: what the pool shall be, from settings, files, loaders and the command line.

Rule of the package: only it reads Django's settings. A message about a bad value names the place,
the value and what would be right. Other packages may import any of its modules.
"""
