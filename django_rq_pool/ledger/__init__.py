"""Ledger: each job's one record of truth, and who settles it.

Rule of the package: it knows RQ's insides and calls back into no worker. Doors: `held`,
`transactions`, `settle`, `members`, `abandoned`, `schedulers` and `recovery` for a worker,
`recovery_process` for the start.
"""
