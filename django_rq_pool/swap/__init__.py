"""Swap: one pool takes another's place.

Rule of the package: an older pool is asked, never ended. Doors: `takeover` for the newer pool,
`release` for the older, `older_pools` and `discovery` for whoever looks for other pools.
"""
