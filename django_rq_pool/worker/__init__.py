"""Worker: what a forked worker does, from the fork to the end of its process.

Rule of the package: the project's RQ worker class with the pool's behaviour on top; it knows
nothing of the manager but what `ipc` carries. Doors: `main`, and `trial` for the command's check.
"""
