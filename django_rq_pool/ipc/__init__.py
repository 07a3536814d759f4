"""IPC: every way in which two processes of a pool, or two pools, talk.

Rule of the package: it carries, and decides nothing. Every room is a door.
"""
