"""Manager: keeps the counts true.

Rule of the package: no Django, RQ or Redis; it decides nothing that `planning` can decide. Door:
`loop`, and what its constructor takes.
"""
