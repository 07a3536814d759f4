"""Ledger: each job's one record of truth, and who settles it.

Rule of the package: it knows RQ's insides and calls back into no worker. Doors, for a
worker: `held`, `transactions`, `recogniser`, `settle`, `members`, `schedulers`, `abandoned` and
`sweep`; for the start: `recovery_process`.
"""
