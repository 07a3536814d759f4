"""Startup: from a configuration to a running manager.

Rule of the package: the only one that knows all the others. Doors: `run` with `run_options`, and
`job_modules` and `preload_check` for the command's check.
"""
